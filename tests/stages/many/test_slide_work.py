"""The slides that `embed` works through: what is said of each, estimates, and slides that nobody spoke for."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.base.console import Progress
from pipeline.cohort.manifest.read import read_manifest
from pipeline.features.embedding import Failure
from pipeline.features.layouts import Mark
from stages.many.slide_work import ExpectedPatches, SlideDone, SlideWork, count_slide, prepare_ahead, slides_hash
from stages.reports.embed import Tally

FAILURE = Failure("a", 1, 2, "UNREADABLE", "a tile is damaged")


def test_what_came_of_a_slide_goes_through_json() -> None:
    done = SlideDone("a", 10, 1, 9, is_before=False, warnings="odd", failures=[FAILURE])
    assert SlideDone.from_record(done.record()) == done


def test_slides_are_counted() -> None:
    tally = Tally(Path("out"), Path("out"))
    for done in (
        SlideDone("a", 10, 1, 10, warnings="odd", failures=[FAILURE]),
        SlideDone("b", 5, is_before=True),
        SlideDone("c", reason="gone"),
    ):
        count_slide(tally, done)
    assert (tally.num_slides, tally.num_patches, tally.failed_patches) == (2, 15, 1)
    assert (tally.num_before, tally.new_patches) == (1, 10)
    assert (tally.reasons, tally.warnings) == ({"c": "gone"}, {"a": "odd"})


def test_other_slides_are_expected_to_have_as_many_patches() -> None:
    with Progress("testing", 0, "patches", silent=True) as progress:
        expected = ExpectedPatches(progress, num_left=3)
        totals, estimated = [], []
        for num_patches in (10, 20, 30):
            expected.num_left -= 1
            expected.expect(num_patches)
            totals.append(progress.total)
            estimated.append(progress.is_estimate)
    assert totals == [30, 45, 60]
    assert estimated == [True, True, False]


def test_rows_are_prepared_ahead_in_their_order(slides_dir: Path) -> None:
    rows = read_manifest(slides_dir / "manifest.csv", None).rows
    taken: list[str] = []

    def claimed() -> Any:
        for row in rows:
            taken.append(row.slide_id)
            yield row

    ahead = prepare_ahead(claimed(), lambda row: row.slide_id, 1)  # type: ignore[arg-type, return-value]
    first, prepared = next(ahead)
    assert (first, prepared.result()) == (rows[0], rows[0].slide_id)
    assert len(taken) == 2
    assert [row for row, _ in ahead] == list(rows[1:])


def test_the_hash_of_slides_knows_their_files(slides_dir: Path, tmp_path: Path) -> None:
    manifest = read_manifest(slides_dir / "manifest.csv", None)
    moved = shutil.copytree(slides_dir, tmp_path / "moved")
    assert slides_hash(read_manifest(moved / "manifest.csv", None)) == slides_hash(manifest)
    assert slides_hash(replace(manifest, rows=manifest.rows[1:])) != slides_hash(manifest)


@pytest.mark.parametrize("failed", [0, 2])
def test_a_slide_whose_process_died_before_it_spoke_is_told_by_its_mark(failed: int) -> None:
    row: Any = SimpleNamespace(slide_id="a")
    marks: dict[str, Mark | None] = {"a": SimpleNamespace(rows=7, failed=failed)}  # type: ignore[dict-item]
    place: Any = SimpleNamespace(read_mark=marks.get)
    work = SlideWork(SimpleNamespace(rows=[row]), place, None, {}, {}, True, False)  # type: ignore[arg-type]
    assert work.is_on_disk(0)
    done = work.done_silently(row)
    assert (done.rows, done.failed, len(done.failures)) == (7, failed, 1 if failed else 0)
    marks["a"] = None
    assert not work.is_on_disk(0)
    assert "killed before it could say" in work.done_silently(row).reason
