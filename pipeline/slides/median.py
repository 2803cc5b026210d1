"""Median filter over a square, exactly scipy's with its edges repeated, in a fraction of the time.

scipy sorts the square of each pixel by itself. Here numpy takes minima and maxima of whole shifted arrays, in an order
that gives the median of any values (a sorting network): each column of the square is sorted once for all the squares
that it is part of, then each row of the sorted columns; what then has too many smaller or larger neighbours to be the
median is dropped, and of the rest the smallest and the largest are taken away until one is left. Pure. Decision 0052.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LARGEST_NETWORK_PX = 9
"""Widest square that is filtered here; scipy takes wider ones. Our choice: the network of 9 needs some 1,000 steps, and
the tissue finder's squares have 5 or 7 mask pixels.
"""
STRIP_VALUES = 32_768
"""Values of a strip of rows, so that the arrays of a network stay in a core's own cache. Our choice: fastest of 8,192
to 65,536 on an AMD EPYC.
"""

Step = tuple[bool, int, int, int]
"""Whether the maximum is taken (else the minimum), of which two wires, and the wire that the result becomes."""


@dataclass
class Network:
    """Minima and maxima of pairs of wires, in order.

    Attributes:
        num_inputs: wires 0 to `num_inputs - 1` are the inputs.
        steps: each makes one more wire.
        outputs: wires of the results.
        done_with: of each step the wires that no later step needs.
    """

    num_inputs: int
    steps: list[Step] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    done_with: list[list[int]] = field(default_factory=list)

    def compare(self, wires: list[int], low: int, high: int) -> None:
        """Put the smaller value of two of the `wires` at position `low`, the larger one at `high`."""
        first, second = wires[low], wires[high]
        for position, is_maximum in ((low, False), (high, True)):
            wires[position] = self.num_inputs + len(self.steps)
            self.steps.append((is_maximum, first, second, wires[position]))

    def sort(self, wires: list[int]) -> None:
        """Sort the values of the `wires`: Batcher's odd-even merge sort (Knuth, volume 3, algorithm 5.2.2 M)."""
        count = len(wires)
        top = width = 1 << max(0, (count - 1).bit_length() - 1)
        while width > 0:
            far, wanted, apart = top, 0, width
            while True:
                for low in range(count - apart):
                    if low & width == wanted:
                        self.compare(wires, low, low + apart)
                if far == width:
                    break
                far, wanted, apart = far // 2, width, far - width
            width //= 2

    def select_median(self, wires: list[int]) -> int:
        """The wire of the median of an odd number of `wires`.

        The smallest and the largest of just more than half of the values cannot be the median of all.
        """
        half = len(wires) // 2 + 2
        kept, later = wires[:half], wires[half:]
        while len(kept) > 1:
            last = len(kept) - 1
            for position in range(len(kept) // 2):
                self.compare(kept, position, last - position)
            for position in range(1, (len(kept) + 1) // 2):
                self.compare(kept, 0, position)
            for position in range(len(kept) // 2, last):
                self.compare(kept, position, last)
            kept = kept[1:-1] + later[:1]
            later = later[1:]
        return kept[0]

    def finish(self, outputs: Sequence[int]) -> "Network":
        """Set the results, and drop the steps that no result needs."""
        self.outputs = list(outputs)
        needed, steps = set(self.outputs), []
        for step in reversed(self.steps):
            _, first, second, made = step
            if made in needed:
                self.done_with.append([wire for wire in {first, second} if wire not in needed])
                needed |= {first, second}
                steps.append(step)
        self.steps = steps[::-1]
        self.done_with.reverse()
        return self

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The results for input arrays of one shape."""
        values = dict(enumerate(inputs))
        for (is_maximum, first, second, made), over in zip(self.steps, self.done_with, strict=True):
            values[made] = (np.maximum if is_maximum else np.minimum)(values[first], values[second])
            for wire in over:
                del values[wire]
        return [values[wire] for wire in self.outputs]


@cache
def column_network(side: int) -> Network:
    """Sorts `side` values."""
    network = Network(side)
    wires = list(range(side))
    network.sort(wires)
    return network.finish(wires)


@cache
def square_network(side: int) -> Network:
    """The median of a square of `side` x `side` values, whose columns are sorted; the inputs row by row."""
    network = Network(side * side)
    rows = [list(range(row * side, (row + 1) * side)) for row in range(side)]
    for row in rows:
        network.sort(row)  # columns stay sorted
    half = side * side // 2
    places = [(row, column) for row in range(side) for column in range(side)]
    candidates = [
        rows[row][column]
        for row, column in places
        if (row + 1) * (column + 1) - 1 <= half and (side - row) * (side - column) - 1 <= half
    ]
    return network.finish([network.select_median(candidates)])


def median_filter(image: NDArray[Any], side: int) -> NDArray[Any]:
    """The median of the square of `side` pixels around each pixel, of the type of `image`, (H, W) or (H, W, C); `side`
    is odd. Beyond an edge its pixels are repeated. Equals scipy's `median_filter` with the mode "nearest" to the bit
    on values that are numbers.
    """
    assert side % 2 == 1, side
    if side == 1 or image.size == 0:
        return image.copy()
    if side > LARGEST_NETWORK_PX:
        return np.asarray(ndimage.median_filter(image, (side, side, *(1,) * (image.ndim - 2)), mode="nearest"))
    height, width = image.shape[:2]
    margin = side // 2
    margins = ((margin, margin), (margin, margin), *((0, 0),) * (image.ndim - 2))
    result = np.empty_like(image)
    columns, squares = column_network(side), square_network(side)
    num_rows = max(1, STRIP_VALUES // (image.size // height))
    rows_of = np.arange(-margin, height + margin).clip(0, height - 1)
    for top in range(0, height, num_rows):
        count = min(num_rows, height - top)
        strip = np.pad(image[rows_of[top : top + count + 2 * margin]], ((0, 0), *margins[1:]), mode="edge")
        ranked = columns.run([strip[row : row + count] for row in range(side)])
        shifted = [ranks[:, column : column + width] for ranks in ranked for column in range(side)]
        (result[top : top + count],) = squares.run(shifted)
    return result
