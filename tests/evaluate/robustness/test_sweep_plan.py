"""Plans of a sweep: PathoROB's for its sets, ours for others, or the reason why there is none."""

import re
from dataclasses import replace

import numpy as np
import pytest
from croma.downstream import pathorob_schedule
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats.contingency import association
from support.sweep_sets import grid, index_rows, planned, published_cases

from pipeline.evaluate.robustness.data import IndexRows
from pipeline.evaluate.robustness.options import RobustnessOptions
from pipeline.evaluate.robustness.sweep_plan import (
    OUR_SCHEDULE,
    PATHOROB_SCHEDULE,
    PUBLISHED_SWEEPS,
    cramers_v,
    plan_sweep,
)
from pipeline.public_sets.recipe import set_recipes


@given(st.lists(st.integers(1, 50), min_size=6, max_size=6))
def test_v_is_cramers(counts: list[int]) -> None:
    table = np.array(counts).reshape(2, 3)
    split = [(i, j, int(table[i, j])) for i in range(2) for j in range(3)]
    assert cramers_v(split) == pytest.approx(association(table, method="cramer"), abs=1e-9)


@pytest.mark.parametrize(
    ("number", "trained", "tested", "strengths"),
    [
        (7, 4, 2, [0, 1 / 2, 1]),
        (8, 4, 3, [0, 1 / 2, 1]),
        (9, 6, 2, [0, 1 / 3, 2 / 3, 1]),  # as PathoROB's Tolkach-ESCA
        (12, 8, 3, [0, 1 / 4, 1 / 2, 3 / 4, 1]),  # as PathoROB's TCGA
        (17, 12, 4, [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]),
        (60, 32, 16, [0, 2 / 16, 5 / 16, 7 / 16, 9 / 16, 11 / 16, 14 / 16, 1]),
    ],
)
def test_our_schedule_by_the_number_of_cases(number: int, trained: int, tested: int, strengths: list[float]) -> None:
    plan = planned(index_rows(grid(number, 4)))
    assert (plan.num_trained, plan.tested, plan.patches) == (trained, tested, 4)
    assert plan.strengths == pytest.approx(strengths)
    assert [sum(patches for _, _, patches in split) for split, _ in plan.splits] == [2 * trained * 4] * len(strengths)
    assert plan.cases_at(len(strengths) - 1) == [f"n, a: {trained}", "n, b: 0", "s, a: 0", f"s, b: {trained}"]


@given(st.lists(st.integers(7, 40), min_size=4, max_size=4), st.integers(2, 130), st.integers(0, 3))
def test_our_schedule_always_fits_and_goes_from_none_to_total(numbers: list[int], patches: int, more: int) -> None:
    cells = [("n", "a"), ("n", "b"), ("s", "a"), ("s", "b")]
    cases = [
        (f"{a}{b}{i}", a, b, patches + i % (more + 1))
        for (a, b), k in zip(cells, numbers, strict=True)
        for i in range(k)
    ]
    plan = planned(index_rows(cases))
    smallest = min(len(cell) for of_center in plan.cells for cell in of_center)
    assert plan.num_trained + 1 + plan.tested <= smallest
    assert smallest >= 0.8 * min(numbers)
    assert 2 <= plan.patches <= 100
    assert all(
        len(images) >= plan.patches for of_center in plan.cells for cell in of_center for images in cell.values()
    )
    assert (plan.strengths[0], plan.strengths[-1]) == pytest.approx((0, 1))
    assert all(np.diff(plan.strengths) > 0)
    assert all(draw.num_sets > 0 for draw in plan.draws)


def test_the_two_centres_and_classes_with_most_cases_are_taken() -> None:
    cases = [*grid(7, 4, "nsw", "abc"), *(("more" + a + b, a, b, 4) for a in "sw" for b in "ac")]
    plan = planned(index_rows(cases))
    assert (plan.centers, plan.classes) == (("s", "w"), ("a", "c"))
    plan = planned(index_rows(grid(7, 4, "nsw", "abc")))
    assert (plan.centers, plan.classes) == (("n", "s"), ("a", "b"))
    larger = [(case, a, b, patches + 3 * (a != "s")) for case, a, b, patches in grid(7, 4, "nsw", "abc")]
    assert planned(index_rows(larger)).centers == ("n", "w")


def test_the_order_of_the_table_does_not_matter() -> None:
    rows = index_rows([*grid(8, 4), ("both", "n", "a", 5), ("both", "n", "b", 5)])
    order = np.random.default_rng(0).permutation(len(rows.images))
    shuffled = IndexRows(rows.images[order], rows.slides[order], rows.classes[order], rows.centers[order], None)
    first, second = planned(rows), planned(shuffled)
    assert first.cells == second.cells
    assert first.splits == second.splits


def test_a_case_gives_what_most_can_give() -> None:
    cases = [(f"{a}{b}{i}", a, b, 100 * i + 1) for a in "ns" for b in "ab" for i in range(10)]
    plan = planned(index_rows(cases))
    assert plan.patches == 100  # the ninth of ten, with one patch, cannot; the most is 100
    assert {len(cell) for of_center in plan.cells for cell in of_center} == {9}
    cases = [(f"{a}{b}{i}", a, b, 5 * i + 5) for a in "ns" for b in "ab" for i in range(10)]
    assert planned(index_rows(cases)).patches == 15  # eight of ten have as many


def test_a_case_of_both_centres_is_left_out_and_slides_of_a_case_are_one() -> None:
    cases = [*grid(8, 4), *[("wanderer", center, "a", 9) for center in "ns"]]
    plan = planned(index_rows(cases))
    assert "wanderer" not in {case for of_center in plan.cells for cell in of_center for case in cell}
    rows = index_rows(grid(16, 4))
    pairs = np.array([name[:2] + str(int(name[2:]) // 2) for name in rows.slides])
    plan = planned(replace(rows, cases=pairs))
    assert (plan.patches, {len(cell) for of_center in plan.cells for cell in of_center}) == (8, {8})


def test_a_patch_in_several_subsets_counts_once() -> None:
    rows = index_rows(grid(8, 4))
    twice = IndexRows(*(np.tile(column, 2) for column in (rows.images, rows.slides, rows.classes, rows.centers)), None)
    assert planned(twice).cells == planned(rows).cells


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        (
            grid(6, 4),
            "our schedule needs 7 cases with 2 patches each .* a and b from n and s, with 6 in the smallest cell",
        ),
        (grid(9, 1), "with 0 in the smallest cell"),
        (grid(9, 4)[:-3], "with 6 in the smallest cell"),
        (grid(9, 4, "n"), "two centres and two classes"),
        (grid(9, 4, classes="a"), "two centres and two classes"),
        ([(f"{i}", a, b, 4) for a in "ns" for b in "ab" for i in range(9)], "with 0 in the smallest cell"),
    ],
)
def test_what_is_too_small_is_a_reason(cases: list[tuple[str, str, str, int]], why: str) -> None:
    reason = plan_sweep(OUR_SCHEDULE, index_rows(cases))
    assert isinstance(reason, str)
    assert re.search(why, reason), reason


@pytest.mark.parametrize("name", PUBLISHED_SWEEPS)
def test_pathorobs_schedule_for_pathorobs_set(name: str) -> None:
    published = PUBLISHED_SWEEPS[name]
    rows = index_rows([*published_cases(name), ("other", "elsewhere", "another class", 3)])
    plan = planned(rows, PATHOROB_SCHEDULE)
    assert list(plan.splits) == pathorob_schedule(published.dataset, rows_per_slide=published.patches)
    assert plan.tested == {"camelyon": 2, "tcga": 3, "tolkach_esca": 2}[published.dataset]
    assert (plan.strengths[0], plan.strengths[-1]) == pytest.approx((0, 1))
    assert all(np.diff(plan.strengths) > 0)
    assert (plan.schedule, plan.patches) == (name, published.patches)


@pytest.mark.parametrize("name", PUBLISHED_SWEEPS)
def test_another_set_has_no_schedule_of_pathorobs(name: str) -> None:
    published, cases = PUBLISHED_SWEEPS[name], published_cases(name)
    case, center, label, patches = cases[-1]
    reason = plan_sweep(PATHOROB_SCHEDULE, index_rows([*cases[:-1], (case, center, label, patches - 1)]))
    assert isinstance(reason, str)
    assert f"and here are {published.slides} slides, {case!r} with {patches - 1} patches" in reason
    reason = plan_sweep(PATHOROB_SCHEDULE, index_rows(cases[:-1]))
    assert isinstance(reason, str)
    assert f"of {label} from {center}, and here are {published.slides - 1} slides; another set takes" in reason
    reason = plan_sweep(
        PATHOROB_SCHEDULE, index_rows([(f"{a}{i}", a, "new", 4) for a in published.centers for i in range(4)])
    )
    assert isinstance(reason, str)
    assert f"{name} has {published.slides} slides" in reason
    assert "and here are 0 slides" in reason


def test_a_set_of_other_centres_is_none_of_pathorobs() -> None:
    reason = plan_sweep(PATHOROB_SCHEDULE, index_rows(grid(9, 4)))
    assert isinstance(reason, str)
    assert reason.startswith("the set has the centres of none of PathoROB's (RUMC, UMCU; Asterand, ")


def test_cases_of_which_none_can_be_tested_on_are_a_reason() -> None:
    """All nine cases of a centre have all classes but one, which has other cases: more than five are too many."""
    published = PUBLISHED_SWEEPS["pathorob-tolkach-esca"]
    cases = [
        (f"{center}{label if center.startswith('VALSET4') else ''}{i}", center, label, published.patches)
        for center in published.centers
        for label in published.classes
        for i in range(9)
    ]
    reason = plan_sweep(PATHOROB_SCHEDULE, index_rows(cases))
    assert reason == "no set of cases of VALSET4_CHA_FULL has 2 of each class, to test on"


def test_the_names_are_those_of_the_option_and_of_the_recipes() -> None:
    for name in (OUR_SCHEDULE, PATHOROB_SCHEDULE):
        assert RobustnessOptions.build({"robustness_sweep": name}).robustness_sweep == name
    assert PUBLISHED_SWEEPS.keys() == {name for name in set_recipes() if name.startswith("pathorob")}
