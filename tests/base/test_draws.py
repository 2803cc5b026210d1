"""Draws: none tells anything of another, and a run keeps those that it was begun with."""

import numpy as np
import pytest
from scipy.stats import chisquare
from support.places import ROOT

from pipeline.base.draws import RUN_VERSION, RunDraws, draw_seed
from pipeline.cohort.views.views import Views
from pipeline.sampling import patch_keys
from pipeline.training.rows.order import epoch_order, row_keys, row_views

ROWS = np.arange(16_000)
PURPOSES = ("order", "augment", "validation", "view", "which view", "calibration", "linear map", "evaluate", "verify")
PURPOSES += ("order of views", "view crop x", "view turn", "view stain", "view colours?", "view place of hue")


def uniform(counts: np.ndarray) -> bool:
    return bool(chisquare(counts.ravel()).pvalue > 1e-4)


def joint(draws: RunDraws, epoch: int, view: int) -> np.ndarray:
    """How often the rows that show `view` in an epoch have it in each of its eight turns."""
    shown = row_views(ROWS, Views(4, 0), draws, epoch)
    turns = row_keys(ROWS, 0, view, "view") & np.uint64(7)  # as `Views.apply` turns
    return np.bincount(turns[shown == view].astype(np.int64), minlength=8)


@pytest.mark.parametrize("seed", [0, 7])
def test_which_view_is_shown_tells_nothing_of_what_the_view_is(seed: int) -> None:
    for epoch in range(4):
        counts = np.stack([joint(RunDraws(seed), epoch, view) for view in range(1, 4)])
        assert uniform(counts), (epoch, counts)


def test_runs_of_version_2_keep_their_draw_and_later_ones_have_another() -> None:
    """The views that version 2 showed, and those that are shown now."""
    before, now = (row_views(np.arange(12), Views(4, 0), RunDraws(0, version), 1).tolist() for version in (2, 3))
    assert before == [2, 0, 3, 0, 3, 3, 2, 3, 0, 1, 3, 3]
    assert now == [1, 0, 2, 2, 2, 1, 1, 3, 2, 3, 2, 0]
    assert (RunDraws(5, 2).which_view, RunDraws(5, 2).calibration) == ("which view", "calibration")


def test_runs_of_version_1_have_two_turns_of_eight_where_epoch_and_view_are_one() -> None:
    """The fault of the old draw, which a run that was begun with it keeps."""
    assert np.count_nonzero(joint(RunDraws(0, version=1), 2, 2)) == 2
    assert row_views(np.arange(12), Views(4, 0), RunDraws(0, 1), 1).tolist() == [3, 0, 2, 1, 2, 0, 3, 2, 3, 0, 3, 0]
    old = RunDraws(5, 1)
    assert (old.projector_seed, old.dropout_seed(2), old.calibration) == (5, 7, "order")


@pytest.mark.parametrize("first", PURPOSES)
def test_keys_of_two_purposes_have_nothing_in_common(first: str) -> None:
    """The same seed, row and second number: the draws of which an epoch, a view or an order is made."""
    for second in PURPOSES:
        if second <= first:
            continue
        pair = [(row_keys(ROWS, 0, 2, purpose) & np.uint64(7)).astype(np.int64) for purpose in (first, second)]
        assert uniform(np.bincount(pair[0] * 8 + pair[1], minlength=64)), second


def test_the_slides_that_are_taken_tell_nothing_of_their_patches() -> None:
    """`rank_slides` and `patch_keys` hash the same words: the plan's draws stay what they are, and are independent."""
    import hashlib

    xy = np.array([[448, 896]])
    first = [hashlib.sha256(f"0\0s{i}".encode()).digest()[0] >> 5 for i in range(8000)]
    keys = [int(patch_keys(f"s{i}", xy, 0)[0]) >> 61 for i in range(8000)]
    assert uniform(np.bincount(np.array(first) * 8 + np.array(keys), minlength=64))


def test_seeds_differ_by_purpose_and_by_each_value() -> None:
    seeds = [draw_seed(*call) for call in (("a", 0), ("b", 0), ("a", 1), ("a", 0, 0), ("a", 1, 0), ("a", 10), ("a",))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    now = RunDraws(0)
    dropout = {now.dropout_seed(0), now.dropout_seed(1), RunDraws(1).dropout_seed(0)}
    assert len({now.projector_seed, *dropout, now.dropout_seed(0, 4), now.dropout_seed(1, 4), 0}) == 7
    assert now.dropout_seed(3) == RunDraws(0, 3).dropout_seed(3)
    assert [RunDraws(0, version).batch_norm_over_all for version in (1, 2, 3, 4)] == [False, False, False, True]


def test_the_rows_that_calibrate_are_not_those_of_the_first_steps() -> None:
    """Of two independent orders, a quarter of the rows comes first in both with the chance of one in sixteen."""
    purposes = ("order", RunDraws(7).calibration)
    first, calibrating = (epoch_order(ROWS, 7, 0, purpose)[: len(ROWS) // 4] for purpose in purposes)
    assert abs(len(np.intersect1d(first, calibrating)) - len(ROWS) / 16) < 100
    assert RunDraws(7, version=1).calibration == "order"


def test_the_documented_version_of_runs_is_that_of_the_code() -> None:
    assert f"(now {RUN_VERSION}; absent means 1; " in (ROOT / "docs" / "formats.md").read_text()
