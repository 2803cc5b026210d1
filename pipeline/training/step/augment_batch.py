"""Augmentation of a whole batch on the GPU that trains, to the bit as the reading threads make it a patch at a time.

Training on a GPU waits for the reading threads, and turning a patch and changing its colours takes them a third of the
time that decoding its JPEG does. On a CPU they do it all the same, patch by patch while each lies in the cache
(decision 0110).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.devices import sent
from pipeline.base.draws import RunDraws
from pipeline.training.augment import GREY, JITTER_BITS, WHOLE_LUMA, Augmentation, DrawnJitter
from pipeline.training.rows.order import row_keys

ROWS_AT_ONCE = 64
"""Rows that are augmented together. Our choice: 40 MB a pass for patches of 224 px, and few calls."""


def augments_on(device: torch.device, draws: RunDraws) -> bool:
    """Whether a device augments by itself. A run that changes colours in float32 goes on in the reading threads."""
    return device.type == "cuda" and not draws.jitters_in_floats


@dataclass(frozen=True)
class BatchAugmentation:
    """The augmentation of one epoch's batches, a `pipeline.base.loader.OnDevice`."""

    draws: RunDraws
    epoch: int
    augmentation: Augmentation

    def __call__(self, rows: Sequence[int], pixels: Tensor) -> Tensor:
        """Augment the pixels of these rows, uint8 (B, P, P, 3), into new memory."""
        if self.augmentation == "none":
            return pixels
        keys = row_keys(np.array(rows), self.draws.seed, self.epoch, "augment")
        return augment_batch(pixels, keys, self.augmentation)


def augment_batch(pixels: Tensor, keys: NDArray[np.uint64], augmentation: Augmentation) -> Tensor:
    """What `pipeline.training.augment.augment` makes of each patch of uint8 (B, P, P, 3) with its key of (B,), in new
    memory on the same device.
    """
    if augmentation == "none":
        return pixels.clone()
    out = torch.empty_like(pixels)
    for start in range(0, len(pixels), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        which = sent(torch.from_numpy((keys[some] & np.uint64(7)).astype(np.uint8)), pixels.device)
        turned = turn_rows(pixels[some], which)
        if augmentation == "flips+jitter":
            turned = jitter_rows(turned, [DrawnJitter.drawn(key) for key in keys[some].tolist()])
        out[some] = turned
    return out


def turn_rows(pixels: Tensor, which: Tensor) -> Tensor:
    """`dihedral` of each of (B, P, P, 3), by the three bits of `which`, (B,)."""
    transposed, flip_rows, flip_columns = ((which & bit).bool().view(-1, 1, 1, 1) for bit in (4, 1, 2))
    pixels = torch.where(transposed, pixels.transpose(1, 2), pixels)
    pixels = torch.where(flip_rows, pixels.flip(1), pixels)
    return torch.where(flip_columns, pixels.flip(2), pixels)


def jitter_rows(pixels: Tensor, drawn: Sequence[DrawnJitter]) -> Tensor:
    """`WholeJitter` of each of uint8 (B, P, P, 3).

    What depends on a patch's mean is computed on the device, so that the host never waits for it, in the steps of
    `WholeJitter.drawn`: each is one operation in float64, rounded as IEEE 754 says. On CUDA a division by a Python
    number would not be: torch multiplies by its reciprocal.
    """
    columns = [[by.of_level, by.of_luma, by.constant, by.of_mean, by.half_rest] for by in drawn]
    numbers = sent(torch.tensor(columns, dtype=torch.float64), pixels.device)
    of_level, of_luma, constant, of_mean, half_rest = numbers.unbind(1)
    sums = pixels.sum(dim=(1, 2, 3), dtype=torch.int64).double()
    constant = constant + of_mean * (sums / torch.full_like(sums, pixels[0].numel()))
    base = constant.floor()
    rounding = (((constant - base + 0.5) + half_rest) * (1 << JITTER_BITS)).round()

    def whole(each: Tensor) -> Tensor:
        return each.to(torch.int32).view(-1, 1, 1, 1)

    levels = pixels.to(torch.int32).sub_(GREY)
    red, green, blue = (levels[..., channel : channel + 1] * of for channel, of in enumerate(WHOLE_LUMA))
    luma = red.add_(green).add_(blue).bitwise_right_shift_(8)
    of_pixel = luma.mul_(whole(of_luma)).add_(whole(rounding))
    change = (levels * whole(of_level)).add_(of_pixel).bitwise_right_shift_(JITTER_BITS)
    return change.add_(levels).add_(whole(base) + GREY).clamp_(0, 255).to(torch.uint8)
