"""What fidelity does not see of a store is named: failed, unfinished and undrawn rows, and parts that are too small."""

from pathlib import Path

import numpy as np
from support.fidelity import chosen_rows
from support.stores import make_store

from pipeline.evaluate.fidelity.benchmark import FidelityBenchmark
from pipeline.evaluate.fidelity.options import FidelityOptions
from pipeline.evaluate.fidelity.rows import failed_rows, missing_note, not_shown, not_shown_note, sample_note
from pipeline.report.content import Exclusion, Interval, Report, ReportModel, Score, Section
from stages.evaluate import is_partial, summary


def report_of(*sections: Section) -> Report:
    return Report("r", [ReportModel("a", "", {}, 1)], "a", sections, {}, {})


def section_of(exclusions: list[Exclusion], scores: list[Score] | None = None) -> Section:
    return Section("fidelity", "t", "w", {}, [], exclusions=exclusions, scores=scores or [])


def test_failed_rows_are_named_with_slide_and_reason(tmp_path: Path) -> None:
    """Slide 0 has rows 0 to 19 to train on, slides 1 and 2 the rows to 27 and to 35, held out."""
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(8, 8), failed=(0, 1, 2, 3, 5, 8, 13, 21, 30, 31))
    found = failed_rows(store.first)
    why = "no embedding in the store: test"
    assert found == [
        Exclusion("1 held-out patch of slide slide_1 (row 21)", why),
        Exclusion("2 held-out patches of slide slide_2 (rows 30, 31)", why, count=2),
        Exclusion("7 training patches of slide slide_0 (rows 0, 1, 2, 3, 5 and 2 more)", why, count=7),
    ]
    words = "10 patches of the plan have no embedding in the store and have no part in this."
    assert missing_note(found) == words
    looked = FidelityBenchmark.look(FidelityOptions(store=tmp_path / "s.zarr"), workers=1)
    assert looked.notes == (f"{tmp_path / 's.zarr'}: {words} The report lists them",)
    assert is_partial(report_of(section_of(found)))
    assert "10 left out, listed in the report" in summary(report_of(section_of(found)), tmp_path)


def test_an_unfinished_store_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(20, 20), rows_per_shard=16, shards=2, failed=(24,))
    whys = {exclusion.what: exclusion.why for exclusion in failed_rows(store.first)}
    assert whys == {
        "1 held-out patch of slide slide_1 (row 24)": "no embedding in the store: test",
        "28 held-out patches": "the store is not finished; continue it",
    }


def test_a_whole_store_leaves_nothing_out(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    assert failed_rows(store.first) == []
    assert missing_note([]) == ""
    assert not is_partial(report_of(section_of([])))
    rows = chosen_rows(store)
    assert sample_note(store.first, rows) == ""
    few = chosen_rows(store, 10)
    assert sample_note(store.first, few) == (
        "A sample by hash, for --store-rows: 10 of 16 held-out patches are scored, and maps are fitted on 10 of 48 "
        "training patches."
    )


def test_parts_that_are_too_small_are_listed_and_counted() -> None:
    centers = np.array(["a"] * 9 + ["b"] * 4 + [""] * 3 + ["c"])
    assert not_shown(centers) == [{"name": "b", "patches": 4}, {"name": "c", "patches": 1}, {"name": "", "patches": 3}]
    assert not_shown_note(centers, "centre") == (
        "Not shown: 2 centres with 5 patches, each with fewer than 5; report.json names them. 3 patches without a "
        "centre are in no centre's figures."
    )
    assert not_shown_note(np.array(["a"] * 5 + [""]), "centre") == "1 patch without a centre is in no centre's figures."
    assert not_shown_note(np.array(["a"] * 5), "centre") == not_shown_note(np.array([""] * 5), "centre") == ""


def test_a_range_of_timing_is_not_called_an_interval(tmp_path: Path) -> None:
    quality = section_of([], [Score("RI", {"a": Interval(0.5, 0.4, 0.6)})])
    cost = section_of([], [Score("times faster", {"a": Interval(2, 1.9, 2.1)}, is_cost=True)])
    lines = summary(report_of(quality, cost), tmp_path).splitlines()
    assert any(line.endswith("0.400 to 0.600") for line in lines)
    assert any(line.endswith("1.900 to 2.100, least and largest round") for line in lines)
