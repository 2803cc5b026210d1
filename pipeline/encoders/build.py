"""Encoders as modules: from a uint8 patch to an embedding, with the encoder's own statistics. Weights come from the hub
or from a file.

Weights are found and read by `source`, and loaded by `load`; no remote code runs. Left out: resizing. A patch goes in
as it is, so the plan's patch size must be the encoder's.
"""

import hashlib
import logging
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError, did_you_mean, first_line, raise_if_limit
from pipeline.base.outside import reading
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX, PRETRAINED, SCRATCH
from pipeline.encoders.forms.index import is_index
from pipeline.encoders.forms.shards import check_weights
from pipeline.encoders.hub import no_weights, quiet_hub, redacted, weights_here
from pipeline.encoders.left_out import require_buildable
from pipeline.encoders.load import require_numbers, timm_config
from pipeline.encoders.model_config import CONFIG_FILE, are_statistics, read_model_config
from pipeline.encoders.source import read_source
from pipeline.encoders.table import ENCODERS, EncoderSpec, named_spec


class Encoder(nn.Module):
    """A timm model with its normalisation and embedding rule.

    forward: uint8 (B, P, P, 3) RGB -> (B, D) in the arithmetic of the surrounding autocast.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # uint8 patches arrive with channels last; 2.5 times faster for CNNs

    def normalise(self, patches: Tensor) -> Tensor:
        """uint8 (B, P, P, 3) -> float32 (B, 3, P, P), channels last in memory; as torchvision's ToTensor and
        Normalize.
        """
        if patches.device.type == "cpu" and not torch.compiler.is_compiling():
            return normalise_in_cache(patches, self.mean.flatten(), self.std.flatten())
        return normalise_whole(patches, self.mean, self.std)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, P, P) -> (B, D)."""
        if self.spec.embedding == "pooled":
            return torch.as_tensor(self.model(images))
        tokens = self.model.forward_features(images)  # type: ignore[operator]
        cls = tokens[:, 0]
        if self.spec.embedding == "cls":
            return torch.as_tensor(cls)
        patches = tokens[:, self.model.num_prefix_tokens :]
        return torch.cat([cls, patches.mean(1)], dim=1)

    def forward(self, patches: Tensor) -> Tensor:
        return self.embed(self.normalise(patches))


def normalise_whole(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (patches / 255 - mean) / std (B, 3, H, W), channels last in memory, on any device;
    statistics are (1, 3, 1, 1), float32.

    Three passes, of which the first converts as well: two passes and three buffers less than `float`, `div`, `sub` and
    `div` one after the other, whose digits it has. One multiplication and addition a value would be less still, and
    would have other digits.
    """
    return patches.permute(0, 3, 1, 2).div(255).sub_(mean).div_(std)


def normalise_in_cache(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (patches / 255 - mean) / std (B, 3, H, W), channels last in memory, in the
    statistics' type; for a CPU.

    The digits are those of four operations on the whole batch. Done patch by patch nothing leaves the processor's cache
    in between, and statistics repeated for a row of pixels leave no inner loop of three: 3 to 4.5 times as fast on one
    core (benchmarks/normalise.py).
    """
    batch, height, width, _ = patches.shape
    mean, std = mean.repeat(width), std.repeat(width)
    out = torch.empty((batch, height, width * 3), dtype=mean.dtype)
    for patch, rows in zip(patches.reshape(batch, height, width * 3), out, strict=True):
        rows.copy_(patch).div_(255).sub_(mean).div_(std)
    return out.view(batch, height, width, 3).permute(0, 3, 1, 2)


OF_A_FILE = "unknown (weights of a file)"
"""Licence of weights that a user's file holds, of an encoder that has no page here."""


@dataclass(frozen=True)
class BuiltEncoder:
    """An encoder, and what is known of it once it is built."""

    module: Encoder
    spec: EncoderSpec
    weights: str
    weights_sha256: str
    num_params: int
    note: str = ""
    """For the user: which of several sets of weights was taken, and what of the file is left out."""

    def record(self) -> dict[str, Any]:
        """All of it as JSON types, for stores, runs and cards."""
        return self.spec.record() | {
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "num_params": self.num_params,
        }


def known_to_timm(name: str) -> bool:
    """Whether timm has an architecture of that name (a tag of weights behind a dot is ignored)."""
    return bool(timm.is_model(name))


def mistyped_encoder(name: str) -> str:
    """ " (did you mean NAME?)" for a name that is nearly one of the table's, or else of timm's; of a folder that is
    there, how it is named.
    """
    if Path(name).is_dir():
        return f"; there is a folder of this name: {FOLDER_PREFIX}{name}"
    return did_you_mean(name, ENCODERS) or did_you_mean(name, timm.list_models())


def weights_hash(model: nn.Module) -> str:
    """Hex SHA-256 of a model's state: names, types, shapes and bytes in the order of names, whatever file they came
    from.
    """
    return tensors_hash(sorted(model.state_dict().items()))


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The same of tensors in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


MAX_REASON = 300
"""Characters of a loader's list of keys that an error shows. Our choice."""
UNBUILDABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    OSError,
    KeyError,
    AssertionError,
    AttributeError,
    pickle.UnpicklingError,
    safetensors.SafetensorError,
)
"""What timm raises for a model that it does not know or weights that it cannot read."""


def _create(spec: EncoderSpec, patch_px: int, *, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The bare timm model of a spec, and all arguments that make it again from its architecture's name.

    Raises:
        EncoderError: timm knows no such model, or its weights cannot be had.
    """
    name = _timm_name(spec, pretrained=pretrained)
    arguments = {"num_classes": 0, **spec.arguments}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        config = timm_config(model)
        native = config["input_size"][-1]
        if config.get("fixed_input_size") and "img_size" not in spec.arguments and native != patch_px:
            arguments["img_size"] = patch_px
            model = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # what the hub's client and its proxies raise is not documented
        raise_if_limit(error)
        refusal = _refusal(spec, error, pretrained=pretrained)
        if refusal is None:
            raise
        raise refusal from None
    published = getattr(model, "_model_args", {})  # those that a hub or a folder keeps beside the weights
    return model, {key: value for key, value in {**published, **arguments}.items() if key != "num_classes"}


def _timm_name(spec: EncoderSpec, *, pretrained: bool) -> str:
    """What timm calls the model: a page of the hub with its weights, else the architecture."""
    return spec.source if pretrained and spec.source.startswith(HUB_PREFIX) else spec.architecture


def _refusal(spec: EncoderSpec, error: Exception, *, pretrained: bool) -> EncoderError | None:
    """The error that a user is shown where timm raises one; `None` for one that timm is not known to raise."""
    if spec.source.startswith(FOLDER_PREFIX) and isinstance(error, RuntimeError):  # of load_state_dict
        keys = " ".join(str(error).split())[:MAX_REASON]
        return EncoderError(
            f"{spec.source.removeprefix(FOLDER_PREFIX)}: the weights in this folder do not fit its config.json "
            f"({keys}). If their names have a prefix, --weights with the file takes it off"
        )
    is_unknown_to_timm = spec.source.startswith("timm:") and not known_to_timm(_timm_name(spec, pretrained=pretrained))
    is_fetched = pretrained or _timm_name(spec, pretrained=pretrained).startswith(HUB_PREFIX)
    if is_fetched and not is_unknown_to_timm:
        return no_weights(spec, first_line(error), config_only=not pretrained)
    if not isinstance(error, UNBUILDABLE):
        return None
    hint = mistyped_encoder(spec.name)
    text = f"cannot get the encoder {spec.name} ({first_line(error)}){hint}; `g2l models` lists the encoders"
    return EncoderError(redacted(text))


def require_known(name: str, patch_px: int) -> None:
    """See that a name is of an encoder for patches of `patch_px`, as far as that is known without its weights.

    Raises:
        EncoderError: it is not.
    """
    spec = named_spec(name)
    if spec.source.startswith("timm:") and not known_to_timm(_timm_name(spec, pretrained=False)):
        hint = mistyped_encoder(name)
        raise EncoderError(
            redacted(f"cannot get the encoder {name}: timm has none{hint}; `g2l models` lists the encoders")
        )
    require_patch_size(spec, name, patch_px)


def require_patch_size(spec: EncoderSpec, name: str, patch_px: int) -> None:
    """See that an encoder takes patches of `patch_px`.

    Raises:
        EncoderError: it takes others.
    """
    if spec.patch_px not in (0, patch_px):
        raise EncoderError(
            f"{name} takes patches of {spec.patch_px} px, these have {patch_px}. Plan with --patch-px {spec.patch_px}"
        )


def build_encoder(name: str, weights: str | Path, patch_px: int, *, seed: int = 0) -> BuiltEncoder:
    """Build an encoder for patches of `patch_px`.

    Args:
        name: of the table, a timm name, `hf-hub:...` or `local-dir:...`.
        weights: `PRETRAINED`, `SCRATCH` (random, by `seed`), a file, `FILE::SET` for one of several sets in it, or a
            folder with a file as a hub publishes it.

    Raises:
        EncoderError: unknown name, weights absent or not fitting, another patch size, or no (B, D) embedding.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
    quiet_hub()
    require_buildable(name)
    require_patch_size(spec := _with_folders_rule(named_spec(name)), name, patch_px)
    by_timm = weights == PRETRAINED and spec.patch_px == 0  # those of the table need nothing of the hub but the weights
    if by_timm and spec.source.startswith(FOLDER_PREFIX) and (file := weights_here(spec)):
        by_timm = not is_index(file)  # timm reads one file of a folder
    loaded = None  # read before the model is built: to build a giant only to find no weights takes long
    if by_timm:
        _check_folders_weights(spec)
    elif weights != SCRATCH:
        loaded = read_source(spec, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, arguments = _create(spec, patch_px, pretrained=by_timm)
    note = "" if loaded is None else loaded.load_into(model)
    if by_timm:
        require_numbers(model.state_dict(), spec.source.removeprefix(FOLDER_PREFIX))
    if spec.patch_px == 0:
        of_file = weights not in (PRETRAINED, SCRATCH)
        spec = _with_own_description(spec, timm_config(model), arguments, patch_px, of_file=of_file)
    module = Encoder(model, spec).eval()
    spec = replace(spec, width=measure_width(module, patch_px))
    module.spec = spec
    num_params = sum(p.numel() for p in model.parameters())
    label = weights if weights in (PRETRAINED, SCRATCH) else Path(weights).name
    return BuiltEncoder(module, spec, str(label), weights_hash(model), num_params, note)


def _with_folders_rule(spec: EncoderSpec) -> EncoderSpec:
    """The spec with the embedding rule that the `config.json` of a `local-dir:` model says, if it says one."""
    if not spec.source.startswith(FOLDER_PREFIX):
        return spec
    folder = Path(spec.source.removeprefix(FOLDER_PREFIX))
    if not (folder / CONFIG_FILE).exists():  # timm will say that it is missing
        return spec
    return replace(spec, embedding=read_model_config(folder).get("embedding", "pooled"))


def _check_folders_weights(spec: EncoderSpec) -> None:
    """Look at the weights of a `local-dir:` model before timm reads them.

    Raises:
        EncoderError: the file is damaged, or is not one of weights.
    """
    if spec.source.startswith(FOLDER_PREFIX) and (file := weights_here(spec)):
        check_weights(file)


def _with_own_description(
    spec: EncoderSpec, config: dict[str, Any], arguments: dict[str, Any], patch_px: int, *, of_file: bool
) -> EncoderSpec:
    """The spec of an encoder that is not in the table, completed by timm's description of the model, which states the
    licence of timm's own weights, not of those `of_file`.

    Raises:
        EncoderError: its statistics are not three numbers each.
    """
    for name in ("mean", "std"):
        if not are_statistics(config.get(name), spread=name == "std"):
            raise EncoderError(
                f"{spec.name}: its own configuration says {name} {config.get(name)}, not three "
                "numbers, of red, green and blue"
            )
    return replace(
        spec,
        architecture=config["architecture"],
        arguments=arguments,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        patch_px=patch_px,
        licence=OF_A_FILE if of_file else config.get("license") or spec.licence,
    )


@torch.inference_mode()
def measure_width(module: Encoder, patch_px: int) -> int:
    """Dimension of the embedding, by a forward pass; never taken from a model's own description.

    Raises:
        EncoderError: the output is not (B, D), or the table says another width.
    """
    with reading(module.spec.name, f"does not take patches of {patch_px} px, as it is configured", EncoderError):
        output = module(torch.zeros((2, patch_px, patch_px, 3), dtype=torch.uint8))
    if output.ndim != 2:
        raise EncoderError(
            f"{module.spec.name} gives {tuple(output.shape)} for 2 patches, not (2, D): its embedding rule is unknown"
        )
    width = int(output.shape[1])
    if module.spec.width not in (0, width):
        raise EncoderError(f"{module.spec.name} gives {width} dimensions, the table says {module.spec.width}")
    return width
