"""Whether an embedding of the test patch is the expected one; and if not, which other way of making it is.

Allowed are differences that the arithmetic alone makes (docs/decisions/0085). When there are more, the usual mistakes
are made one by one on purpose: other statistics, another rule, a patch that was resized, channels the wrong way round.
One that gives the expected values names the cause.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.base.devices import autocast
from pipeline.encoders.build import Encoder
from pipeline.encoders.table import (
    BIOPTIMUS_MEAN,
    BIOPTIMUS_STD,
    HALF,
    HIBOU_MEAN,
    HIBOU_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LUNIT_MEAN,
    LUNIT_STD,
)


@dataclass(frozen=True)
class Allowed:
    """Differences that arithmetic may make: the largest one, in units of the expected values' RMS, and 1 - cosine."""

    largest: float
    turn: float


ALLOWED: Mapping[str, Allowed] = MappingProxyType(
    {"float32": Allowed(1e-3, 1e-6), "float16": Allowed(0.03, 5e-5), "bfloat16": Allowed(0.25, 2e-3)}
)
"""By the arithmetic, coarsest last. Measured (docs/decisions/0085): float32 in another order 5e-6 and 1e-12; float16
7e-3 and 2e-6; bfloat16 0.07 and 2e-4. One grey level in one pixel of a hundred makes 3e-3; wrong statistics from 0.7.
"""
STATISTICS = MappingProxyType(
    {
        "ImageNet's statistics": (IMAGENET_MEAN, IMAGENET_STD),
        "mean = std = 0.5": (HALF, HALF),
        "Bioptimus' statistics": (BIOPTIMUS_MEAN, BIOPTIMUS_STD),
        "Hibou's statistics": (HIBOU_MEAN, HIBOU_STD),
        "Lunit's statistics": (LUNIT_MEAN, LUNIT_STD),
        "CLIP's statistics": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "no statistics (RGB in 0..1)": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }
)
"""Statistics that tools normalise with."""
CROP_SHARE = 0.875
"""Share of the side that timm and torchvision keep of an image by default."""
CLOSER = 5.0
"""How many times smaller a difference must be for its cause to be named where none gives equal values. Our choice."""


@dataclass(frozen=True)
class Agreement:
    """How an embedding compares with the expected one.

    Attributes:
        cosine: of the two.
        largest: the largest difference, in units of the expected values' RMS.
        at: the dimension of that difference.
        expected, found: the two values there.
        arithmetic: the coarser one of the two.
        is_equal: whether the differences are within what that arithmetic makes.
    """

    cosine: float
    largest: float
    at: int
    expected: float
    found: float
    arithmetic: str
    is_equal: bool


def agreement(expected: NDArray[np.float32], found: NDArray[np.float32], *arithmetics: str) -> Agreement:
    """Compare two embeddings (D,), the second one of this machine; `arithmetics`: those that made them."""
    arithmetic = max(arithmetics, key=list(ALLOWED).index)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    difference = np.abs(a - b) / np.sqrt(np.mean(a * a))
    at = int(np.argmax(np.where(np.isfinite(difference), difference, np.inf)))
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a @ b / lengths) if lengths and np.isfinite(lengths) else float("nan")
    allowed, largest = ALLOWED[arithmetic], float(difference[at])
    is_equal = bool(largest <= allowed.largest and 1 - cosine <= allowed.turn)  # NaN is not equal
    return Agreement(cosine, largest, at, float(expected[at]), float(found[at]), arithmetic, is_equal)


@torch.inference_mode()
def embed_patch(module: Encoder, patch: NDArray[np.uint8], device: torch.device, precision: str) -> NDArray[np.float32]:
    """The embedding of one patch uint8 (P, P, 3), float32 (D,)."""
    with autocast(device, precision):
        return _row(module(torch.from_numpy(patch)[None].to(device)))


def _row(output: Tensor) -> NDArray[np.float32]:
    return np.asarray(output.float().cpu()[0].numpy(), np.float32)


@dataclass(frozen=True)
class Cause:
    """Another way to make the embedding, and how that compares with the expected values."""

    words: str
    agreement: Agreement


def likely_cause(
    module: Encoder,
    patch: NDArray[np.uint8],
    device: torch.device,
    precision: str,
    expected: NDArray[np.float32],
    *arithmetics: str,
) -> Cause | None:
    """The usual mistake that makes the expected values, or comes much closer to them than the right way does; `None` if
    none does.
    """
    width = len(expected)
    right = embed_patch(module, patch, device, precision)
    start = agreement(expected, right, *arithmetics).largest if len(right) == width else np.inf
    best: Cause | None = None
    with torch.inference_mode(), autocast(device, precision):
        for words, output in _other_ways(module, torch.from_numpy(patch)[None].to(device)):
            found = _row(output)
            if len(found) != width:
                continue
            cause = Cause(words, agreement(expected, found, *arithmetics))
            if best is None or cause.agreement.largest < best.agreement.largest:
                best = cause
    if best is None or (not best.agreement.is_equal and not best.agreement.largest * CLOSER < start):
        return None
    return best


def _other_ways(module: Encoder, patches: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The embedding made in each of the usual wrong ways, and in words how; lazily, a forward pass each."""
    spec = module.spec
    for words, (mean, std) in STATISTICS.items():
        if (mean, std) != (spec.mean, spec.std):
            other = Encoder(module.model, replace(spec, mean=mean, std=std)).to(patches.device).eval()
            yield f"with {words}", other(patches)
    images = module.normalise(patches)
    yield from _other_rules(module, images)
    right = module.embed(images)
    yield "scaled to length 1", functional.normalize(right.float(), dim=1)
    yield "with blue and red exchanged", module(patches.flip(-1))
    side = patches.shape[1]
    large = round(side / CROP_SHARE)
    for mode in ("bicubic", "bilinear"):
        yield (
            f"of the patch enlarged to {large} px ({mode}) and cropped to {side}",
            module.embed(_enlarged(patches, large, mode, module)),
        )
    yield "of the patch turned by 90 degrees or with rows and columns exchanged", module(patches.transpose(1, 2))


def _other_rules(module: Encoder, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The embeddings by other rules, for models that have tokens."""
    model: nn.Module = module.model
    tokens = model.forward_features(images)  # type: ignore[operator]
    prefix = getattr(model, "num_prefix_tokens", 0)
    if tokens.ndim != 3 or not prefix:
        return
    cls, patches = tokens[:, 0], tokens[:, prefix:]
    yield "by the class token alone", cls
    yield "by the class token with the mean of the patch tokens", torch.cat([cls, patches.mean(1)], dim=1)
    yield "by the mean of the patch tokens alone", patches.mean(1)
    if prefix > 1:
        both = torch.cat([cls, tokens[:, 1:].mean(1)], dim=1)
        yield "by the class token with the mean of all others, registers included", both


def _enlarged(patches: Tensor, large: int, mode: str, module: Encoder) -> Tensor:
    """Normalised images (B, 3, P, P) of the middle of enlarged patches, in whole grey levels as libraries give them."""
    side = patches.shape[1]
    images = patches.permute(0, 3, 1, 2).float()
    images = functional.interpolate(images, size=(large, large), mode=mode, antialias=True, align_corners=False)
    margin = (large - side) // 2
    middle = images[:, :, margin : margin + side, margin : margin + side].round().clamp(0, 255)
    return module.normalise(middle.permute(0, 2, 3, 1).to(torch.uint8))
