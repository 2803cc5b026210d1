"""Features are the teacher's if a patch's own row is the likest: cosines less the mean, ranks, and who is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.stores import plan_of_rows

from pipeline.base.errors import StoreError
from pipeline.cohort.audit import AuditRow
from pipeline.features.importing import ImportedSlide
from pipeline.features.proof import (
    Proof,
    Refused,
    centred_cosines,
    common_part,
    cosines,
    read_refused,
    refused_slides,
    sample_rows,
    share_nearer,
)
from pipeline.store.store import Store

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("bad", "refused_whole"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_more_than_half_is_not_the_slides(bad: int, refused_whole: bool) -> None:
    worst = [(0.2, 0.5), (float("nan"), 0.0), (0.95, 0.06), (0.89, 0.0)]  # NaN, rank and cosine each refuse
    found = {f"s{i}": worst[i] if i < bad else (0.99, 0.0) for i in range(4)}
    slides = {name: ImportedSlide(AuditRow(name, "ok"), digest=f"sha of {name}") for name in found}
    if refused_whole:
        with pytest.raises(StoreError, match=rf"the features of {bad} of 4 slides are not those that tiny gives"):
            refused_slides(found, slides, 0.9, "tiny")
    else:
        refused = refused_slides(found, slides, 0.9, "tiny")
        assert [(r.slide_id, r.sha256) for r in refused] == [(f"s{i}", f"sha of s{i}") for i in range(bad)]


def test_an_error_names_the_first_ten() -> None:
    found = {f"s{i:02d}": (0.0, 0.5) for i in range(12)}
    slides = {name: ImportedSlide(AuditRow(name, "ok")) for name in found}
    with pytest.raises(StoreError, match=r"(?s)  s00: cosine 0\.000, 50% of .*  s09: .*\n  and 2 more\n") as caught:
        refused_slides(found, slides, 0.9, "tiny")
    assert "s10" not in str(caught.value)


def test_the_bounds_themselves_pass() -> None:
    slides = {"s": ImportedSlide(AuditRow("s", "ok"))}
    assert refused_slides({"s": (0.5, 0.05)}, slides, 0.5, "tiny") == ()


# --- cosines and ranks ---


def test_cosines_are_those_of_the_definition() -> None:
    a, b = RNG.standard_normal((2, 6, 5))
    expected = [x @ y / np.sqrt(x @ x) / np.sqrt(y @ y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(cosines(a, b), expected)
    assert cosines(np.zeros((1, 5)), b[:1]).tolist() == [0]


def test_the_mean_does_not_make_strangers_alike() -> None:
    """Rows that share a large part are alike with it and are not less it."""
    common = np.full(5, 20.0)
    stored, strangers = (RNG.standard_normal((2, 40, 5)) + common).astype(np.float32)
    assert cosines(stored, strangers).min() > 0.98
    less = centred_cosines(stored, strangers, np.zeros(5) + common)
    assert abs(np.median(less)) < 0.5
    np.testing.assert_allclose(less, cosines(stored - common, strangers - common), atol=1e-5)
    np.testing.assert_allclose(centred_cosines(stored, stored, common), 1, atol=1e-6)


def test_rows_that_are_the_mean_are_compared_as_they_are() -> None:
    """Of a slide of one colour: what is left less the mean is rounding."""
    row = np.array([[3.0, 4.0]], np.float32)
    again = row + np.array([[0.0, 0.001]], np.float32)
    assert centred_cosines(row, again, row[0].astype(np.float64))[0] > 0.999


def test_slides_of_much_larger_values_do_not_count_in_the_mean() -> None:
    """Of real embeddings the mean is as ever; of 1,000 times as large ones, the others would all be alike less it."""
    again = (5 + RNG.standard_normal((8, 6))).astype(np.float32)
    centres = list(5 + RNG.standard_normal((3, 6)) / 9)
    np.testing.assert_array_equal(common_part(centres, again), np.mean(centres, axis=0))
    np.testing.assert_array_equal(common_part([*centres, 1000 * centres[0]], again), np.mean(centres, axis=0))
    large = [1000 * centre for centre in centres]
    np.testing.assert_array_equal(common_part(large, again), np.mean(large, axis=0))
    again[0], again[1, 0] = np.nan, np.inf  # the teacher's own failures bound nothing
    np.testing.assert_array_equal(common_part([*centres, large[0]], again), np.mean(centres, axis=0))


def test_the_share_of_nearer_rows_is_counted() -> None:
    rows, centre = RNG.standard_normal((7, 4)).astype(np.float32), RNG.standard_normal(4)
    again, own = RNG.standard_normal((3, 4)).astype(np.float32), np.array([6, 0, 3])
    found = share_nearer(again, own, rows, centre)
    for i, mine in enumerate(own):
        like = cosines(np.repeat(again[i : i + 1], 7, axis=0) - centre, rows - centre)
        assert found[i] == pytest.approx((like > like[mine]).sum() / 6)
    assert share_nearer(rows[own], own, rows, centre).tolist() == [0, 0, 0]
    assert share_nearer(rows[:1], np.array([0]), rows[:1], centre).tolist() == [0]  # the only row


def test_twins_of_a_row_are_not_nearer() -> None:
    rows = np.repeat(RNG.standard_normal((1, 4)), 5, axis=0).astype(np.float32)
    assert share_nearer(rows, np.arange(5), rows, np.zeros(4)).tolist() == [0] * 5


# --- the sample and its record ---


def test_a_sample_has_so_many_rows_of_each_slide() -> None:
    plan = plan_of_rows((16, 3, 9), (5,))
    rows = sample_rows(plan, 4)
    assert rows == sorted(set(rows))
    assert np.bincount(plan.slide_of_row()[rows]).tolist() == [4, 3, 4, 4]
    assert rows == sample_rows(plan, 4)
    assert set(sample_rows(plan, 2)) < set(rows)
    assert rows[:4] != [0, 1, 2, 3]  # not simply the first
    assert sample_rows(plan, 99) == list(range(plan.num_rows))
    assert sample_rows(plan, 0) == []


def test_the_record_of_a_proof_comes_back_and_damage_is_named() -> None:
    refused = Refused("s1", "a" * 64, "why")
    notes = Proof(8, 0.99, 0.98, 0.01, 0.9, 0.25, 3.0, (refused,)).notes()
    assert notes["proof"] == {
        "rows": 8,
        "median_cosine": 0.99,
        "min_slide_cosine": 0.98,
        "max_nearer": 0.01,
        "min_plain_cosine": 0.9,
        "largest": 0.25,
        "scale": 3.0,
    }
    assert "refused" not in Proof(8, 0.99, 0.98, 0.01, 0.9, 0.25, 3.0).notes()

    def store_with(attributes: dict[str, Any]) -> Store:
        return cast(Store, SimpleNamespace(folder=Path("s.zarr"), first=SimpleNamespace(attributes=attributes)))

    assert read_refused(store_with(notes)) == (refused,)
    assert read_refused(store_with({})) == ()
    for damaged in ({"refused": 3}, {"refused": [{"slide_id": "s1"}]}, {"refused": [[]]}):
        with pytest.raises(StoreError, match=r"s\.zarr: its attribute refused is damaged .*Choose another --out"):
            read_refused(store_with(damaged))
