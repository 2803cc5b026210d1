"""Cuts of planned slides: parts of what there was, nested, and equal between centres."""

from dataclasses import replace

import numpy as np
from support.extraction import made_up_plan

from pipeline.cohort.draws.cut import balance_notes, balanced_by_center, cut_slide
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Sampling
from pipeline.sampling import TRAIN, VAL, sample_patches

UNIFORM = Sampling(None, 3, 0.1)


def slide(name: str, center: str | None, rows: int, held_out: int = 0) -> SlidePlan:
    coords = np.stack([np.arange(rows) * 64, np.zeros(rows, np.int64)], axis=1)
    split = np.full(rows, TRAIN, np.uint8)
    split[:held_out] = VAL
    known = made_up_plan().slides[0]
    return replace(known, slide_id=name, case_id=name, center=center, coords_l0_px=coords, split=split)


def test_a_cut_is_the_sample_of_that_size_and_nested() -> None:
    whole = slide("a", None, 100)
    few, more = cut_slide(whole, {None: 10}, UNIFORM), cut_slide(whole, {None: 30}, UNIFORM)
    np.testing.assert_array_equal(few.coords_l0_px, whole.coords_l0_px[sample_patches("a", whole.coords_l0_px, 10, 3)])
    assert set(few.coords_l0_px[:, 0].tolist()) < set(more.coords_l0_px[:, 0].tolist())
    assert len(cut_slide(whole, {}, UNIFORM).split) == 0


def test_centres_give_equally_many_to_train_on_and_to_hold_out() -> None:
    slides = [slide(f"north {i}", "north", 400) for i in range(6)] + [
        slide("south", "south", 500),
        slide("x", None, 20),
    ]
    slides += [slide("held north", "north", 300, 300), slide("held south", "south", 50, 50)]
    balanced = balanced_by_center(slides, 100, UNIFORM)
    assert [each.slide_id for each in balanced] == [each.slide_id for each in slides]
    numbers = {}
    for each in balanced:
        for split in (TRAIN, VAL):
            key = each.center, split
            numbers[key] = numbers.get(key, 0) + int((each.split == split).sum())
    assert numbers[None, TRAIN] == 20
    assert numbers["north", TRAIN] == numbers["south", TRAIN] == 350
    assert (numbers["north", VAL], numbers["south", VAL]) == (100, 50)
    again = {each.slide_id: each for each in balanced_by_center(slides[::-1], 100, UNIFORM)}
    for each in balanced:
        np.testing.assert_array_equal(again[each.slide_id].coords_l0_px, each.coords_l0_px)
        assert (np.diff(each.coords_l0_px[:, 0]) > 0).all()


def test_the_notes_say_how_it_came_out() -> None:
    slides = [slide("a", "north", 400), slide("b", None, 20)]
    first, second = balance_notes(slides, 100)
    assert first == (
        "--balance center: 2 centres, 20 to 400 patches each; from 1 slide come more than --patches-per-slide 100, at "
        "most 400"
    )
    assert second == "--balance center: 1 slide without a center: together they are one centre"
