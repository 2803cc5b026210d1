"""Water filling: even, within the budget, and never less for more."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohort.draws.filling import fill_evenly, highest_level

cohorts = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=8)


def spent(taken: list[int], costs: tuple[int, ...]) -> int:
    return sum(number * each for number, each in zip(taken, costs, strict=True))


@settings(deadline=None)
@given(cohorts, st.integers(0, 800), st.randoms(use_true_random=False))
def test_a_budget_is_filled_evenly_and_never_exceeded(slides: list[tuple[int, int]], budget: int, random: Any) -> None:
    available, costs = zip(*slides, strict=True) if slides else ((), ())
    order = list(range(len(slides)))
    random.shuffle(order)
    taken = fill_evenly(available, costs, budget, order)
    assert spent(taken, costs) <= budget
    assert all(0 <= number <= there for number, there in zip(taken, available, strict=True))
    short = [i for i in order if taken[i] < available[i]]
    if short:
        assert min(taken[i] for i in short) >= max(taken) - 1
        level = min(taken[i] for i in short)
        first = next(i for i in order if available[i] > level and taken[i] == level)
        assert spent(taken, costs) + costs[first] > budget


@settings(deadline=None)
@given(cohorts, st.integers(0, 800), st.integers(0, 800), st.randoms(use_true_random=False))
def test_a_larger_budget_gives_no_slide_fewer(slides: list[tuple[int, int]], a: int, b: int, random: Any) -> None:
    available, costs = zip(*slides, strict=True) if slides else ((), ())
    order = list(range(len(slides)))
    random.shuffle(order)
    few, many = (fill_evenly(available, costs, budget, order) for budget in sorted((a, b)))
    assert all(x <= y for x, y in zip(few, many, strict=True))


def test_small_slides_leave_their_share_to_others() -> None:
    assert fill_evenly([5, 100, 100], [1, 1, 1], 65, [0, 1, 2]) == [5, 30, 30]
    assert fill_evenly([5, 100, 100], [1, 1, 1], 66, [0, 2, 1]) == [5, 30, 31]
    assert fill_evenly([5, 100, 100], [1, 2, 1], 65, [0, 1, 2]) == [5, 20, 20]  # one that costs twice as much
    assert fill_evenly([5, 5], [1, 1], 10**18, [0, 1]) == [5, 5]
    assert fill_evenly([5, 5], [1, 1], 1, [1, 0]) == [0, 1]
    assert fill_evenly([], [], 9, []) == []


def test_the_highest_level_that_is_paid_for() -> None:
    for budget in range(30):
        assert highest_level(lambda level: 3 * level, budget, 7) == min(budget // 3, 7)
    assert highest_level(lambda level: level, 5, 0) == 0
