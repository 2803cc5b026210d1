"""Water filling: share something evenly between parts of which some have less than an even share. Pure."""

from collections.abc import Callable, Sequence


def highest_level(cost: Callable[[int], int], budget: int, most: int) -> int:
    """The highest level, from 0 to `most`, that a budget pays for; `cost` of a higher one is not less."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle - 1)
    return low


def fill_evenly(available: Sequence[int], costs: Sequence[int], budget: int, order: Sequence[int]) -> list[int]:
    """How many patches of each slide a budget buys, none more than another that has more.

    Args:
        available: patches of each slide.
        costs: of a patch of each, at least 1.
        budget: what all may cost.
        order: the slides' indices, in which what is left is handed out; it ends at the first that it does not pay for,
            so that a larger budget hands out more, not otherwise.
    """

    def cost(most: int) -> int:
        return sum(min(number, most) * each for number, each in zip(available, costs, strict=True))

    level = highest_level(cost, budget, max(available, default=0))
    taken, left = [min(number, level) for number in available], budget - cost(level)
    for index in order:
        if taken[index] < available[index]:
            if costs[index] > left:
                break
            taken[index] += 1
            left -= costs[index]
    return taken
