"""Encoders as modules: from a uint8 patch to an embedding, with the encoder's own statistics. Weights come from the hub
or from a file.

Weights are read behind `weight_files`, and the encoder is found in a file by `weight_sets`; no remote code runs. Left
out: resizing. A patch goes in as it is, so the plan's patch size must be the encoder's.
"""

import hashlib
import logging
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError, did_you_mean, first_line
from pipeline.base.outside import reading
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX, PRETRAINED, SCRATCH, is_run, split_choice
from pipeline.encoders.convert import to_timm_names
from pipeline.encoders.hub import (
    fetch_published,
    no_weights,
    published_files,
    quiet_hub,
    redacted,
    weights_here,
    weights_in,
)
from pipeline.encoders.left_out import require_buildable
from pipeline.encoders.model_config import CONFIG_FILE, are_statistics, read_model_config
from pipeline.encoders.positions import stretched_as_published
from pipeline.encoders.table import ENCODERS, EncoderSpec, named_spec
from pipeline.encoders.weight_files import check_weight_file, read_weight_file, require_plain_types
from pipeline.encoders.weight_sets import choice_note, choose_set


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
        return patches.permute(0, 3, 1, 2).float().div(255).sub(self.mean).div(self.std)

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


def normalise_in_cache(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (patches / 255 - mean) / std (B, 3, H, W), channels last in memory, in the
    statistics' type; for a CPU.

    The digits are those of four operations on the whole batch. Done patch by patch nothing leaves the processor's cache
    in between, and statistics repeated for a row of pixels leave no inner loop of three: 17 times as fast on one core.
    """
    batch, height, width, _ = patches.shape
    mean, std = mean.repeat(width), std.repeat(width)
    out = torch.empty((batch, height, width * 3), dtype=mean.dtype)
    for patch, rows in zip(patches.reshape(batch, height, width * 3), out, strict=True):
        rows.copy_(patch).div_(255).sub_(mean).div_(std)
    return out.view(batch, height, width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class BuiltEncoder:
    """An encoder, and what is known of it once it is built."""

    module: Encoder
    spec: EncoderSpec
    weights: str
    weights_sha256: str
    num_params: int
    note: str = ""
    """For the user: which of several sets of weights was taken."""

    def record(self) -> dict[str, Any]:
        """All of it as JSON types, for stores, runs and cards."""
        return self.spec.record() | {
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "num_params": self.num_params,
        }


def find_weights(path: Path, spec: EncoderSpec) -> Path:
    """The file of a model's weights that a path names: itself, or the one in a folder under a published name; of a run
    of stage two its student's.

    Raises:
        EncoderError: the folder has none, or there is no such file.
    """
    if not path.is_dir():
        if not path.exists():
            if str(path) == SCRATCH:
                raise EncoderError("a teacher is not started from scratch: --weights takes a file or folder of weights")
            raise EncoderError(f"{path}: no such weights{did_you_mean(str(path), (PRETRAINED, SCRATCH))}")
        return path
    file = weights_in(path / "student" if is_run(path) else path, spec)
    if file is None:
        raise EncoderError(f"{path}: no {' or '.join(published_files(spec))} is in this folder")
    return file


def timm_config(model: nn.Module) -> dict[str, Any]:
    """timm's own description of a model: input size, statistics, classifier, licence."""
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    return config


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict strictly: only the classifier, which an encoder does not have, may be left over.

    Names of DINOv2's own code and of transformers are taken for timm's (`convert`). Position embeddings of another
    image size are resampled by timm's own filter for the architecture. Counters of batch norm, which play no part in an
    embedding, may be missing.

    Raises:
        EncoderError: keys, shapes or types do not fit; names some of them.
    """
    require_plain_types(weights, source)
    weights = to_timm_names(weights)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            weights = convert(weights, model)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{source}: the weights do not fit the architecture ({type(error).__name__}: {first_line(error)})"
            ) from None
    classifiers = timm_config(model).get("classifier") or ()
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    expected = model.state_dict()
    kept = {k: v for k, v in weights.items() if k in expected or not k.startswith(tuple(f"{n}." for n in names))}
    if problems := _misfits(kept, expected):
        raise EncoderError(f"{source}: the weights do not fit the architecture: {'; '.join(problems)}")
    require_numbers(kept, source, expected)
    model.load_state_dict(kept)


def _misfits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of weights differ from those of the model, in words; empty if they fit. torch fills in
    `num_batches_tracked`, which it has written since 0.4.1.
    """
    shared = sorted(expected.keys() & weights.keys())
    unlike = {
        "missing": sorted(n for n in expected.keys() - weights.keys() if not n.endswith(".num_batches_tracked")),
        "unknown": sorted(weights.keys() - expected.keys()),
        "of another shape": [name for name in shared if weights[name].shape != expected[name].shape],
    }
    return [f"{len(names)} {what} ({', '.join(names[:4])}, ...)" for what, names in unlike.items() if names]


def require_numbers(weights: Mapping[str, Tensor], source: str, expected: Mapping[str, Tensor] | None = None) -> None:
    """See that weights are of the kind of number that the model has, and finite.

    Raises:
        EncoderError: floating point and whole numbers are mixed up (quantised weights), or there is NaN, or infinity.
    """
    for name, value in weights.items():
        if expected is not None and value.dtype.is_floating_point != expected[name].dtype.is_floating_point:
            raise EncoderError(
                f"{source}: {name} is of type {value.dtype}, not {expected[name].dtype}: weights that "
                "were quantised or converted are not loaded"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise EncoderError(
                f"{source}: {name} holds NaN or infinity: the file is damaged, or of a training that diverged"
            )


def known_to_timm(name: str) -> bool:
    """Whether timm has an architecture of that name (a tag of weights behind a dot is ignored)."""
    return bool(timm.is_model(name))


def mistyped_encoder(name: str) -> str:
    """ " (did you mean NAME?)" for a name that is nearly one of the table's, or else of timm's."""
    return did_you_mean(name, ENCODERS) or did_you_mean(name, timm.list_models())


def weights_hash(model: nn.Module) -> str:
    """Hex SHA-256 of a model's state: names, types, shapes and bytes in the order of names, whatever file they came
    from.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
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
            f"{spec.source.removeprefix(FOLDER_PREFIX)}: the weights in this folder do not fit its config.json ({keys})"
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
    spec = _with_folders_rule(named_spec(name))
    if spec.patch_px not in (0, patch_px):
        raise EncoderError(
            f"{name} takes patches of {spec.patch_px} px, these have {patch_px}. Plan with --patch-px {spec.patch_px}"
        )
    by_timm = weights == PRETRAINED and spec.patch_px == 0  # those of the table need nothing of the hub but the weights
    loaded = None  # read before the model is built: to build a giant only to find no weights takes long
    if by_timm:
        _check_folders_weights(spec)
    elif weights != SCRATCH:
        loaded = _read_weights(spec, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, arguments = _create(spec, patch_px, pretrained=by_timm)
    note = "" if loaded is None else loaded.load_into(model)
    if by_timm:
        require_numbers(model.state_dict(), spec.source.removeprefix(FOLDER_PREFIX))
    if spec.patch_px == 0:
        spec = _with_own_description(spec, timm_config(model), arguments, patch_px)
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
        check_weight_file(file)


@dataclass(frozen=True, eq=False)
class _ReadWeights:
    """A file of weights that has been read.

    Attributes:
        file: which one.
        content: what is in it.
        chosen_set: the set of several that the user names; empty to choose by the names of tensors.
        published_as: where the file was published, for messages; empty for a file that the user gives.
        page: the page of the encoder, which says how its positions are stretched.
    """

    file: Path
    content: dict[str, Any]
    chosen_set: str
    published_as: str
    page: str

    def load_into(self, model: nn.Module) -> str:
        """Choose the encoder's set and load it; returns a note if the choice was among several, else "".

        Raises:
            EncoderError: there is no such set, or it does not fit.
        """
        chosen, others = choose_set(self.content, model, str(self.file), self.chosen_set)
        place = f"{self.file}: {chosen.name}" if chosen.name else str(self.file)
        load_weights(model, stretched_as_published(chosen.weights, model, self.page), self.published_as or place)
        return "" if self.chosen_set else choice_note(str(self.file), chosen, others)


def _read_weights(spec: EncoderSpec, weights: str | Path) -> _ReadWeights:
    """The file that `weights` names, or the published one, read.

    Raises:
        EncoderError: there is none, or it is damaged.
    """
    if weights == PRETRAINED:
        file = fetch_published(spec)
        return _ReadWeights(file, read_weight_file(file), "", spec.source, spec.page)
    place, chosen_set = split_choice(Path(weights))
    file = find_weights(place, spec)
    return _ReadWeights(file, read_weight_file(file), chosen_set, "", spec.page)


def _with_own_description(
    spec: EncoderSpec, config: dict[str, Any], arguments: dict[str, Any], patch_px: int
) -> EncoderSpec:
    """The spec of an encoder that is not in the table, completed by timm's description of the model.

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
        licence=config.get("license") or spec.licence,
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
