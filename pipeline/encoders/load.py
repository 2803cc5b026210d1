"""Load weights into a model, strictly: every tensor has its place, and what is left out is known by name."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError, first_line
from pipeline.encoders.convert import to_timm_names, training_only
from pipeline.encoders.forms.dinov3 import fitted, is_dinov3
from pipeline.encoders.weight_files import require_plain_types

MOST_NAMES = 4
"""Tensors that a refusal names of each kind. Our choice."""


def timm_config(model: nn.Module) -> dict[str, Any]:
    """timm's own description of a model: input size, statistics, classifier, licence."""
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    return config


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> list[str]:
    """Load a state dict strictly: only the classifier, which an encoder does not have, and what serves training alone
    may be left over.

    Names of DINOv2's and DINOv3's own code and of transformers are taken for timm's (`convert`). Position embeddings of
    another image size are resampled by timm's own filter for the architecture. Counters of batch norm, which play no
    part in an embedding, may be missing.

    Returns:
        the names of what is left out.

    Raises:
        EncoderError: keys, shapes or types do not fit; names some of them.
    """
    require_plain_types(weights, source)
    try:
        named = to_timm_names(weights)
    except (KeyError, RuntimeError, IndexError, TypeError) as error:
        raise _misfit(source, error) from None
    left = training_only(weights, named)
    weights = fitted(named, model, source) if is_dinov3(weights) else named
    weights, lost = _filtered(weights, model, source)
    classifiers = timm_config(model).get("classifier") or ()
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    expected = model.state_dict()
    kept = {k: v for k, v in weights.items() if k in expected or not k.startswith(tuple(f"{n}." for n in names))}
    if problems := _misfits(kept, expected):
        raise EncoderError(f"{source}: the weights do not fit the architecture: {'; '.join(problems)}")
    require_numbers(kept, source, expected)
    model.load_state_dict(kept)
    return left + lost + [name for name in weights if name not in kept]


def _filtered(weights: dict[str, Tensor], model: nn.Module, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Weights as timm's own filter for the architecture makes them, if it has one; and the names of what it drops.

    Raises:
        EncoderError: the filter stumbles over them.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights, []
    try:
        made = convert(dict(weights), model)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _misfit(source, error) from None
    return made, _lost(weights, made)


def _misfit(source: str, error: Exception) -> EncoderError:
    return EncoderError(
        f"{source}: the weights do not fit the architecture ({type(error).__name__}: {first_line(error)})"
    )


def _lost(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that timm's filter has dropped; none where it has put tensors together, so that nobody knows."""
    kept = {value.data_ptr() for value in after.values()}
    given = {value.data_ptr() for value in before.values()}
    if any(name not in before and value.data_ptr() not in given for name, value in after.items()):
        return []
    return [name for name, value in before.items() if name not in after and value.data_ptr() not in kept]


def _misfits(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of weights differ from those of the model, in words; empty if they fit. torch fills in
    `num_batches_tracked`, which it has written since 0.4.1.
    """
    shared = sorted(expected.keys() & weights.keys())
    other = [name for name in shared if weights[name].shape != expected[name].shape]
    unlike = {
        "missing": sorted(n for n in expected.keys() - weights.keys() if not n.endswith(".num_batches_tracked")),
        "unknown": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} is {tuple(weights[name].shape)}, not {tuple(expected[name].shape)}" for name in other
        ],
    }
    return [
        f"{len(names)} {what} ({', '.join(names[:MOST_NAMES])}{', ...' * (len(names) > MOST_NAMES)})"
        for what, names in unlike.items()
        if names
    ]


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
