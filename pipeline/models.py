"""Encoders as modules: from a uint8 patch to an embedding, with the encoder's own statistics. Weights come from the hub
or from a file.

Weights are read as safetensors or with `weights_only=True`; no remote code runs. Left out: resizing. A patch goes in as
it is, so the plan's patch size must be the encoder's.
"""

import hashlib
import json
import logging
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from pipeline.compute import first_line
from pipeline.convert import to_timm_names
from pipeline.encoders import EmbeddingRule, EncoderSpec, named_spec
from pipeline.errors import EncoderError
from pipeline.hub import FOLDER, HUB, fetch_published, no_weights, published_files, quiet_hub, redacted, weights_in

RULES = get_args(EmbeddingRule)
PRETRAINED = "pretrained"
SCRATCH = "scratch"


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


@dataclass(frozen=True)
class BuiltEncoder:
    """An encoder, and what is known of it once it is built."""

    module: Encoder
    spec: EncoderSpec
    weights: str
    weights_sha256: str
    num_params: int

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
        EncoderError: the folder has none.
    """
    if not path.is_dir():
        return path
    is_run = (path / "run.json").is_file()
    file = weights_in(path / "student" if is_run else path, spec)
    if file is None:
        raise EncoderError(f"{path}: no {' or '.join(published_files(spec))} is in this folder")
    return file


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file or a PyTorch file of tensors only; wrappings of training code are taken off.

    Raises:
        EncoderError: missing, unreadable, or it holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EncoderError(f"{path}: no such weights") from None
    except (OSError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        raise EncoderError(f"{path}: unreadable weights ({first_line(error)})") from None
    except Exception as error:  # noqa: BLE001  (pickle's own errors for code, and any other for what is no pickle)
        raise EncoderError(
            f"{path}: not a PyTorch file of nothing but tensors, and so not loaded ({type(error).__name__}). Save its "
            "state dict by itself"
        ) from None
    for key in ("state_dict", "model", "teacher", "student"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise EncoderError(f"{path}: not a state dict of tensors")
    prefixes = ("module.", "backbone.")
    weights: dict[str, Tensor] = {}
    for key, value in content.items():
        for prefix in prefixes:
            key = key.removeprefix(prefix)
        weights[key] = value
    return weights


def timm_config(model: nn.Module) -> dict[str, Any]:
    """timm's own description of a model: input size, statistics, classifier, licence."""
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    return config


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict strictly: only the classifier, which an encoder does not have, may be left over.

    Names of DINOv2's own code and of transformers are taken for timm's (`convert`). Position embeddings of another
    image size are resampled by timm's own filter for the architecture.

    Raises:
        EncoderError: keys or shapes do not fit; names some of them.
    """
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
    shared = sorted(expected.keys() & kept.keys())
    unlike = {
        "missing": sorted(expected.keys() - kept.keys()),
        "unknown": sorted(kept.keys() - expected.keys()),
        "of another shape": [name for name in shared if kept[name].shape != expected[name].shape],
    }
    problems = [f"{len(names)} {what} ({', '.join(names[:4])}, ...)" for what, names in unlike.items() if names]
    if problems:
        raise EncoderError(f"{source}: the weights do not fit the architecture: {'; '.join(problems)}")
    model.load_state_dict(kept)


def known_to_timm(name: str) -> bool:
    """Whether timm has an architecture of that name (a tag of weights behind a dot is left away)."""
    return bool(timm.is_model(name))


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
UNBUILDABLE = (RuntimeError, ValueError, TypeError, OSError, KeyError, AssertionError, AttributeError,
               pickle.UnpicklingError, safetensors.SafetensorError)  # fmt: skip
"""What timm raises for a model that it does not know or weights that it cannot read."""


def _create(spec: EncoderSpec, patch_px: int, *, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The bare timm model of a spec, and all arguments that make it again from its architecture's name.

    Raises:
        EncoderError: timm knows no such model, or its weights cannot be had.
    """
    name = spec.source if pretrained and spec.source.startswith(HUB) else spec.architecture
    arguments = {"num_classes": 0, **spec.arguments}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        config = timm_config(model)
        native = config["input_size"][-1]
        if config.get("fixed_input_size") and "img_size" not in spec.arguments and native != patch_px:
            arguments["img_size"] = patch_px
            model = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # what the hub's client and its proxies raise is not documented
        reason, of_page = first_line(error), name.startswith(HUB)
        if spec.source.startswith(FOLDER) and isinstance(error, RuntimeError):  # of load_state_dict
            keys = " ".join(str(error).split())[:MAX_REASON]
            raise EncoderError(f"{spec.source.removeprefix(FOLDER)}: the weights in this folder do not fit its "
                               f"config.json ({keys})") from None  # fmt: skip
        if pretrained or of_page:
            raise no_weights(spec, reason, config_only=not pretrained) from None
        if not isinstance(error, UNBUILDABLE):
            raise
        said = f"cannot get the encoder {spec.name} ({reason}); `g2l models` lists the encoders"
        raise EncoderError(redacted(said)) from None
    of_source = getattr(model, "_model_args", {})  # with those that a hub or a folder keeps beside the weights
    whole = {key: value for key, value in {**of_source, **arguments}.items() if key != "num_classes"}
    return model, whole


def exported_rule(folder: Path) -> EmbeddingRule:
    """How the embedding of a model in a folder is taken: as its `config.json` says, else the model's own output.

    Raises:
        EncoderError: the file is damaged, or it names an unknown rule.
    """
    path = folder / "config.json"
    if not path.exists():
        return "pooled"  # timm will say that it is missing
    try:
        rule = json.loads(path.read_text()).get("embedding", "pooled")
    except (OSError, ValueError, AttributeError) as error:
        raise EncoderError(f"{path}: not a model's description ({first_line(error)})") from None
    if rule not in RULES:
        raise EncoderError(f"{path}: unknown embedding {rule!r}; known are {', '.join(RULES)}")
    return cast(EmbeddingRule, rule)


def build_encoder(name: str, weights: str | Path, patch_px: int, *, seed: int = 0) -> BuiltEncoder:
    """Build an encoder for patches of `patch_px`.

    Args:
        name: of the table, a timm name, `hf-hub:...` or `local-dir:...`.
        weights: `PRETRAINED`, `SCRATCH` (random, by `seed`), a file, or a folder with one as a hub publishes it.

    Raises:
        EncoderError: unknown name, weights absent or not fitting, another patch size, or no (B, D) embedding.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
    quiet_hub()
    spec = named_spec(name)
    if spec.source.startswith("local-dir:"):
        spec = replace(spec, embedding=exported_rule(Path(spec.source.removeprefix("local-dir:"))))
    if spec.patch_px not in (0, patch_px):
        raise EncoderError(
            f"{name} takes patches of {spec.patch_px} px, these have {patch_px}. Plan with --patch-px {spec.patch_px}"
        )
    from_hub = weights == PRETRAINED
    by_timm = from_hub and spec.patch_px == 0  # those of the table need nothing of the hub but the weights
    state: dict[str, Tensor] | None = None  # read first: to build a giant only to find no weights takes long
    if not by_timm and weights != SCRATCH:
        state = read_weights(fetch_published(spec) if from_hub else find_weights(Path(weights), spec))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, arguments = _create(spec, patch_px, pretrained=by_timm)
    if state is not None:
        load_weights(model, state, spec.source if from_hub else str(weights))
    if spec.patch_px == 0:
        config = timm_config(model)
        spec = replace(spec, architecture=config["architecture"], arguments=arguments, mean=tuple(config["mean"]),
                       std=tuple(config["std"]), patch_px=patch_px,
                       licence=config.get("license") or spec.licence)  # fmt: skip
    module = Encoder(model, spec).eval()
    spec = replace(spec, width=measure_width(module, patch_px))
    module.spec = spec
    num_params = sum(p.numel() for p in model.parameters())
    label = weights if weights in (PRETRAINED, SCRATCH) else Path(weights).name
    return BuiltEncoder(module, spec, str(label), weights_hash(model), num_params)


@torch.inference_mode()
def measure_width(module: Encoder, patch_px: int) -> int:
    """Dimension of the embedding, by a forward pass; never taken from a model's own description.

    Raises:
        EncoderError: the output is not (B, D), or the table says another width.
    """
    try:
        output = module(torch.zeros((2, patch_px, patch_px, 3), dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise EncoderError(f"{module.spec.name} does not take patches of {patch_px} px ({first_line(error)})") from None
    if output.ndim != 2:
        raise EncoderError(
            f"{module.spec.name} gives {tuple(output.shape)} for 2 patches, not (2, D): its embedding rule is unknown"
        )
    width = int(output.shape[1])
    if module.spec.width not in (0, width):
        raise EncoderError(f"{module.spec.name} gives {width} dimensions, the table says {module.spec.width}")
    return width
