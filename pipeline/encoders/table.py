"""The table of encoders: what each is, where its weights are, how an embedding is taken from it. Data only; `build`
builds them.

Every architecture is given by a timm name and arguments that fit in JSON, so that an exported student loads anywhere.
The SwiGLU encoders are therefore written as timm's SwiGLU giant with other sizes, rather than by passing a layer class:
the same modules under the same names (docs/decisions/0004). Facts were read in each model's published loading code in
2026-11; 224 px at 0.5 um/px unless noted. `page_facts` says where each was read, and which revision of a page is taken;
`left_out` lists encoders that are not here, and why.
"""

import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX

EmbeddingRule = Literal["cls", "cls+mean", "pooled"]
"""cls: class token after the final norm; cls+mean: with the mean of the patch tokens (registers left out); pooled: the
model's own output.
"""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB in 0..1, as torchvision and timm use them."""
HALF = (0.5, 0.5, 0.5)
"""Statistics of timm's own ViTs, and of kaiko's."""
HIBOU_MEAN, HIBOU_STD = (0.7068, 0.5755, 0.7220), (0.1950, 0.2316, 0.1816)
LUNIT_MEAN, LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
BIOPTIMUS_MEAN, BIOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
"""Statistics of these makers' slides."""


ABOUT = {"decides": False}
"""Marks a field of `EncoderSpec` that an embedding does not depend on."""


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    Attributes:
        name: short name.
        source: where the weights are: "hf-hub:owner/name", or "timm:name", or "local-dir:folder".
        architecture: timm model name.
        arguments: arguments of that model, JSON types only.
        embedding: how the embedding is taken from the forward pass.
        width: dimension of the embedding; 0 until measured.
        mean, std: statistics of RGB in 0..1 that the encoder was trained with.
        patch_px: side of its input; 0 if any.
        mpp: um/px that it was trained at; 0 if not known.
        params_m: millions of parameters.
        licence: terms of the weights, in short.
        gated: whether access is to be asked for.
        key_format: naming scheme of the published weights, for information: `convert` recognises it by the names of the
            tensors.
    """

    name: str = field(metadata=ABOUT)
    source: str = field(metadata=ABOUT)
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    embedding: EmbeddingRule = "cls"
    width: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    patch_px: int = 224
    mpp: float = field(default=0.5, metadata=ABOUT)
    params_m: float = field(default=0.0, metadata=ABOUT)
    licence: str = field(default="", metadata=ABOUT)
    gated: bool = field(default=False, metadata=ABOUT)
    key_format: str = field(default="timm", metadata=ABOUT)

    @property
    def page(self) -> str:
        """Owner and name of the page of the hub that the weights are on; "" if the source is none."""
        return self.source.removeprefix(HUB_PREFIX).partition("@")[0] * self.source.startswith(HUB_PREFIX)

    def record(self) -> dict[str, Any]:
        """The spec as JSON types."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def deciding(self) -> dict[str, Any]:
        """The record of what an embedding depends on, but for the weights."""
        about = {each.name for each in fields(self) if not each.metadata.get("decides", True)}
        return {name: value for name, value in self.record().items() if name not in about}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "EncoderSpec":
        """The inverse of `record`; keys that belong to a store or run only are ignored."""
        values = {k: v for k, v in record.items() if k in cls.__dataclass_fields__}
        return cls(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})


SWIGLU_GIANT = "vit_giant_patch14_reg4_dinov2"
"""timm's ViT with packed SwiGLU, SiLU, LayerScale and registers; every size is an argument."""

_OPTIMUS_ARGUMENTS = {"img_size": 224, "init_values": 1e-5, "global_pool": "token", "dynamic_img_size": False}
_MIDNIGHT_ARGUMENTS = {"img_size": 224, "init_values": 1e-5}
_NON_COMMERCIAL, _NC_ND = "non-commercial", "CC-BY-NC-ND-4.0"
_KAIKO = "hf-hub:1aurent/{}.kaiko_ai_towards_large_pathology_fms"


def _kaiko(name: str, architecture: str, width: int, params_m: float) -> EncoderSpec:
    """One of kaiko's encoders of 2024 without registers."""
    about: dict[str, Any] = {"params_m": params_m, "licence": _NON_COMMERCIAL}
    return EncoderSpec(name, _KAIKO.format(architecture), architecture, {}, "cls", width, HALF, HALF, **about)


def _distillpath(start: str, teacher: str) -> EncoderSpec:
    """A student of DistillPath. KS16 started from kaiko's ViT-S/16 and has its statistics, IS16 from ImageNet's.

    The text of their pages that could be read states no terms of the students, only those of their teachers; a survey
    of encoders found "other" in the pages' headers (2026-11).
    """
    mean, std = (HALF, HALF) if start == "KS16" else (IMAGENET_MEAN, IMAGENET_STD)
    return EncoderSpec(
        f"distillpath-{start}-{teacher}".lower(), f"hf-hub:RamonK/DistillPath-{start}-{teacher}",
        "vit_small_patch16_224", {}, "cls", 384, mean, std, mpp=0.0, params_m=21.7,
        licence='see page: reported as "other", terms not read',
    )  # fmt: skip


# fmt: off
_TABLE = (  # a table for the eye: a few lines an encoder
    EncoderSpec(
        "h-optimus-0", "hf-hub:bioptimus/H-optimus-0", SWIGLU_GIANT, _OPTIMUS_ARGUMENTS, "cls", 1536,
        params_m=1135, licence="Apache-2.0", gated=True, mean=BIOPTIMUS_MEAN, std=BIOPTIMUS_STD,
    ),
    EncoderSpec(
        "h-optimus-1", "hf-hub:bioptimus/H-optimus-1", SWIGLU_GIANT, _OPTIMUS_ARGUMENTS, "cls", 1536,
        params_m=1135, licence=_NC_ND, gated=True, mean=BIOPTIMUS_MEAN, std=BIOPTIMUS_STD,
    ),
    EncoderSpec(
        "h0-mini", "hf-hub:bioptimus/H0-mini", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 768, "depth": 12, "num_heads": 12, "global_pool": ""}, "cls", 768,
        params_m=85.7, licence=_NC_ND, gated=True, mean=BIOPTIMUS_MEAN, std=BIOPTIMUS_STD,
    ),
    EncoderSpec(
        "h0-mini-mean", "hf-hub:bioptimus/H0-mini", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 768, "depth": 12, "num_heads": 12, "global_pool": ""}, "cls+mean", 1536,
        params_m=85.7, licence=_NC_ND, gated=True, mean=BIOPTIMUS_MEAN, std=BIOPTIMUS_STD,
    ),
    EncoderSpec(
        "hibou-l", "hf-hub:histai/hibou-L", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 5.34375, "init_values": 1e-5},
        "cls", 1024, mean=HIBOU_MEAN, std=HIBOU_STD,
        params_m=303.7, licence="Apache-2.0", gated=True, key_format="hibou",
    ),
    EncoderSpec(
        "uni", "hf-hub:MahmoodLab/UNI", "vit_large_patch16_224", {"init_values": 1e-5, "dynamic_img_size": True}, "cls",
        1024, params_m=303, licence=_NC_ND, gated=True,
    ),
    EncoderSpec(
        "uni2-h", "hf-hub:MahmoodLab/UNI2-h", SWIGLU_GIANT,
        {"img_size": 224, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536, "mlp_ratio": 5.33334,
         "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True}, "cls", 1536,
        params_m=681, licence=_NC_ND, gated=True,
    ),
    EncoderSpec(
        "virchow2", "hf-hub:paige-ai/Virchow2", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 1280, "depth": 32, "num_heads": 16, "init_values": 1e-5, "reg_tokens": 4,
         "no_embed_class": False, "mlp_ratio": 5.3375, "global_pool": "", "dynamic_img_size": True}, "cls+mean", 2560,
        params_m=631, licence=_NC_ND, gated=True,
    ),
    EncoderSpec(
        "gigapath", "hf-hub:prov-gigapath/prov-gigapath", "vit_giant_patch14_dinov2",
        {"img_size": 224, "in_chans": 3, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
         "init_values": 1e-5, "mlp_ratio": 5.33334}, "cls", 1536,
        params_m=1130, licence="Apache-2.0", gated=True,
    ),
    EncoderSpec(
        "phikon-v2", "hf-hub:owkin/phikon-v2", "vit_large_patch16_224", {"init_values": 1e-5}, "cls", 1024,
        params_m=303, licence=_NON_COMMERCIAL, key_format="transformers-dinov2",
    ),
    EncoderSpec(
        "kaiko-vitl14", "hf-hub:1aurent/vit_large_patch14_reg4_224.kaiko_ai_towards_large_pathology_fms",
        "vit_large_patch14_reg4_dinov2", {"img_size": 224}, "pooled", 1024, mean=HALF, std=HALF,
        params_m=304, licence=_NON_COMMERCIAL,
    ),
    EncoderSpec(
        "gpfm", "hf-hub:majiabo/GPFM", "vit_large_patch14_dinov2", {"img_size": 224, "init_values": 1e-5}, "cls", 1024,
        params_m=303, licence="see page: MIT there, CC-BY-NC-ND-4.0 in the authors' repository",
    ),
    EncoderSpec(
        "virchow", "hf-hub:paige-ai/Virchow", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 1280, "depth": 32, "num_heads": 16, "init_values": 1e-5, "reg_tokens": 0,
         "no_embed_class": False, "mlp_ratio": 5.3375, "global_pool": "", "dynamic_img_size": True}, "cls+mean", 2560,
        params_m=631, licence="Apache-2.0", gated=True,
    ),
    EncoderSpec(
        "midnight-12k", "hf-hub:kaiko-ai/midnight", "vit_giant_patch14_dinov2", _MIDNIGHT_ARGUMENTS, "cls+mean", 3072,
        mean=HALF, std=HALF, params_m=1135, licence="MIT", key_format="transformers-dinov2",
    ),
    EncoderSpec(
        "midnight-12k-cls", "hf-hub:kaiko-ai/midnight", "vit_giant_patch14_dinov2", _MIDNIGHT_ARGUMENTS, "cls", 1536,
        mean=HALF, std=HALF, params_m=1135, licence="MIT", key_format="transformers-dinov2",
    ),
    EncoderSpec(
        "openmidnight", "hf-hub:SophontAI/OpenMidnight", SWIGLU_GIANT, {"img_size": 224, "init_values": 1e-5}, "cls",
        1536, params_m=1135, licence="Apache-2.0", gated=True, key_format="dinov2",
    ),
    EncoderSpec(
        "gigapath-flash", "hf-hub:prov-gigapath/prov-gigapath-flash", SWIGLU_GIANT,
        {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 2048 / 384,
         "init_values": 1e-5, "reg_tokens": 0, "no_embed_class": False}, "cls", 384,
        params_m=21.7, licence="Apache-2.0, research only", gated=True,
    ),
    EncoderSpec(
        "hibou-b", "hf-hub:histai/hibou-b", SWIGLU_GIANT,
        {"img_size": 224, "embed_dim": 768, "depth": 12, "num_heads": 12, "init_values": 1e-5},
        "cls", 768, mean=HIBOU_MEAN, std=HIBOU_STD, params_m=85.7, licence="Apache-2.0", gated=True, key_format="hibou",
    ),
    EncoderSpec(
        "phikon", "hf-hub:owkin/phikon", "vit_base_patch16_224", {}, "cls", 768,
        params_m=85.8, licence=_NON_COMMERCIAL, key_format="transformers-vit",
    ),
    _kaiko("kaiko-vitb8", "vit_base_patch8_224", 768, 85.8),
    _kaiko("kaiko-vitb16", "vit_base_patch16_224", 768, 85.8),
    _kaiko("kaiko-vits8", "vit_small_patch8_224", 384, 21.7),
    _kaiko("kaiko-vits16", "vit_small_patch16_224", 384, 21.7),
    EncoderSpec(
        "lunit-vits8", "hf-hub:1aurent/vit_small_patch8_224.lunit_dino", "vit_small_patch8_224", {}, "cls", 384,
        mean=LUNIT_MEAN, std=LUNIT_STD, params_m=21.7, licence=_NON_COMMERCIAL,
    ),
    EncoderSpec(  # its card says 21.1 M; its file has the 86.7 MB of 21.7 M
        "lunit-vits16", "hf-hub:1aurent/vit_small_patch16_224.lunit_dino", "vit_small_patch16_224", {}, "cls", 384,
        mean=LUNIT_MEAN, std=LUNIT_STD, params_m=21.7, licence=_NON_COMMERCIAL,
    ),
    _distillpath("KS16", "Virchow2"),
    _distillpath("KS16", "UNI2h"),
    _distillpath("KS16", "HOpt0"),
    _distillpath("IS16", "Virchow2"),
    _distillpath("IS16", "UNI2h"),
    _distillpath("IS16", "HOpt0"),
)
# fmt: on

ENCODERS = MappingProxyType({spec.name: spec for spec in _TABLE})
"""Encoders by short name."""


PAGE = re.compile(rf"{HUB_PREFIX}[^/@\s]+/[^/@\s]+(@\S+)?")
"""How a page is named."""


def named_spec(name: str) -> EncoderSpec:
    """The spec of a name: from the table, or an open one for any timm name, `hf-hub:` or `local-dir:` source.

    A page of the table that is named by its address, `hf-hub:MahmoodLab/UNI`, is the table's encoder (of two on one
    page the first), built and normalised as such; it keeps that name, so that stores and runs go on under it, and the
    revision behind an "@". An open spec takes the model's own output as the embedding and its statistics from the
    model's own configuration.

    Raises:
        EncoderError: a path or page without the word that says which it is.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    page = name.partition("@")[0].lower()  # the hub does not tell cases apart
    for spec in ENCODERS.values():
        if spec.source.lower() == page:
            return replace(spec, name=name, source=name)
    is_placed = name.startswith((HUB_PREFIX, FOLDER_PREFIX))
    if "/" in name and not is_placed and os.path.isdir(name):
        raise EncoderError(f"{name}: there is no such model, but a folder of this name: {FOLDER_PREFIX}{name}")
    if "/" in name and not is_placed:
        raise EncoderError(
            f"{name}: there is no such model. A model's folder is named as {FOLDER_PREFIX}FOLDER, a page as "
            f"{HUB_PREFIX}OWNER/NAME; `g2l models` lists the encoders that have short names"
        )
    if name.startswith(HUB_PREFIX) and not PAGE.fullmatch(name):
        raise EncoderError(f"{name} is not the name of a page. Write hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION")
    source = name if is_placed else f"timm:{name}"
    open_spec = EncoderSpec(name, source, name, embedding="pooled", patch_px=0, mpp=0.0)
    return replace(open_spec, licence="see the model's page")
