"""Budgets: even, never exceeded, nested, and independent of the order of slides."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.extraction import made_up_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.budget import LEFT_OUT, Prices, cut_to_budget, patches_bought
from pipeline.cohort.plan import SlidePlan
from pipeline.cohort.plan_records import plan_from_records, plan_records
from pipeline.config.budget import parse_budget
from pipeline.config.groups import Sampling


def cohort_of(**numbers: int) -> tuple[list[SlidePlan], list[AuditRow]]:
    """Slides that do not exist, of so many patches each, and a failed one."""
    slides = []
    for name, number in numbers.items():
        coords = np.stack([np.arange(number) % 9, np.arange(number) // 9], axis=1) * 64
        split = (np.arange(number) % 4 == 0).astype(np.uint8)
        slides.append(replace(made_up_plan().slides[0], slide_id=name, coords_l0_px=coords, split=split))
    sizes = {"a": 1000, "b": 3000}
    rows = [
        AuditRow(s.slide_id, "ok", split="train+val", patches_taken=len(s.split), pixel_bytes=sizes.get(s.slide_id))
        for s in slides
    ]
    return slides, [*rows, AuditRow("x", "failed", "no tissue")]


def cut(budget: str, prices: Prices | None = None, method: Any = "uniform", **numbers: int) -> Any:
    slides, rows = cohort_of(**numbers)
    return cut_to_budget(slides, rows, parse_budget(budget), prices or Prices(), Sampling(None, 0, 0.1, method=method))


@pytest.mark.parametrize("method", ["uniform", "spread"])
def test_plans_of_larger_budgets_contain_those_of_smaller_ones(method: Any) -> None:
    before: list[set[tuple[int, int]]] = [set(), set(), set()]
    for budget in ("2", "20", "31", "60", "1000"):
        slides, rows, facts = cut(budget, method=method, a=40, b=10, c=33)
        now = [{tuple(xy) for xy in slide.coords_l0_px.tolist()} for slide in slides]
        assert all(x <= y for x, y in zip(before, now, strict=True))
        assert facts["patches"] == sum(map(len, now)) == min(int(budget), 83)
        assert [row.patches_taken for row in rows] == [*map(len, now), 0]
        before = now


def test_the_order_of_slides_decides_nothing() -> None:
    slides, rows = cohort_of(a=40, b=10, c=33)
    budget, sampling = parse_budget("44"), Sampling(None, 3, 0.1, method="spread")
    one = cut_to_budget(slides, rows, budget, Prices(), sampling)
    other = cut_to_budget(slides[::-1], rows[::-1], budget, Prices(), sampling)
    for slide, same in zip(one[0], other[0][::-1], strict=True):
        np.testing.assert_array_equal(slide.coords_l0_px, same.coords_l0_px)
    assert one[1:] == (other[1][::-1], other[2])


@pytest.mark.parametrize("budget", ["44", "1h", "1MB"])
def test_what_is_bought_is_what_is_cut(budget: str) -> None:
    """Also of numbers that are not those of the audit: doctor asks for those of slides that it has not read."""
    slides, rows = cohort_of(a=400, b=100, c=330)
    prices, order = Prices(patches_a_second=0.01), [0, 1, 2]
    taken = patches_bought([400, 100, 330], rows[:3], parse_budget(budget), prices, order)
    facts = cut_to_budget(slides, rows, parse_budget(budget), prices, Sampling(None, 0, 0.1))[2]
    assert sum(taken) == pytest.approx(facts["patches"], abs=2)  # what is left over depends on the order
    more = patches_bought([4000, 1000, 3300], rows[:3], parse_budget(budget), prices, order)
    assert sum(more) == pytest.approx(sum(taken), rel=0.2)
    with pytest.raises(PlanError, match="nobody knows what one takes"):
        patches_bought([1], rows[2:3], parse_budget("1MB"), prices, [0])


def test_slides_that_get_nothing_are_named_and_the_failed_one_stays() -> None:
    _, rows, facts = cut("1", a=40, b=10)
    assert sorted(row.reason for row in rows) == ["", "no tissue", LEFT_OUT]
    assert sorted(row.split for row in rows[:2])[0] == ""
    assert facts == {"budget": "1", "patches": 1, "of_patches": 50, "most_of_a_slide": 1}


def test_bytes_are_those_of_each_slide_and_of_the_embedding() -> None:
    """c was not measured: it is priced as the mean of the others."""
    slides, _, facts = cut("0.1MB", Prices(48, "jpegxl"), a=100, b=100, c=100)
    taken = [len(slide.split) for slide in slides]
    used = np.dot(taken, [1048, 3048, 2048])
    assert 100_000 - 3048 < used <= 100_000
    assert max(taken) - min(taken) <= 1
    assert facts["embedding_bytes"] == 48
    assert len(cut("0.01MB", Prices(100, "none"), a=100, b=100)[0][0].split) == 50


def test_time_is_patches_at_a_rate() -> None:
    _, _, facts = cut("1min", Prices(patches_a_second=0.75), a=100, b=100)
    assert facts == {
        "budget": "1min",
        "patches": 45,
        "of_patches": 200,
        "most_of_a_slide": 23,
        "patches_a_second": 0.75,
    }


def test_bytes_that_nobody_measured_are_refused() -> None:
    with pytest.raises(PlanError, match="--budget 1GB: no patch could be read"):
        cut("1GB", c=5)


def test_a_plan_keeps_what_its_budget_came_to_and_an_earlier_one_has_nothing() -> None:
    plan = made_up_plan()
    assert "budget" not in plan_records(plan)
    bought = replace(plan, budget={"budget": "22", "patches": 22, "of_patches": 99, "most_of_a_slide": 15})
    assert bought.hash != plan.hash
    again = plan_from_records(plan_records(bought), plan.slides, plan.slides_root)
    assert (again.budget, again.hash) == (bought.budget, bought.hash)
