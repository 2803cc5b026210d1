"""What stage one says at its end: how much there is, how fast it was, what failed, and whether an import is proven."""

from pathlib import Path

import pytest
from support.store_writing import edit_attributes
from support.stores import make_store

from pipeline.store.ledger import Ledger
from pipeline.store.store import Store
from stages.reports.extract import Extracted, extract_report, failed_advice, import_report


def extracted(store: Store, num_new_rows: int = 0, seconds: float = 0.0) -> Extracted:
    return Extracted(store.first, num_new_rows, store.first.ledger.status_counts(), seconds)


def test_rows_size_and_rate_are_told(tmp_path: Path) -> None:
    done = extracted(make_store(tmp_path / "s.zarr"), num_new_rows=64, seconds=32.0)
    first, rate = extract_report(done).splitlines()
    arrays = [tmp_path / "s.zarr" / name / "c" for name in ("embedding", "pixels", "status")]
    num_bytes = sum(path.stat().st_size for array in arrays for path in array.rglob("*") if path.is_file())
    assert first == f"{tmp_path / 's.zarr'}: 64 rows of 12 dimensions in 4 shards, {num_bytes / 1000:.1f} kB"
    assert rate.startswith("64 rows in ")
    assert rate.endswith(", 2.0 a second")
    assert done.store is done.teacher.store
    assert done.num_failed == 0


def test_failed_rows_are_told_by_kind_and_where_they_are_listed(tmp_path: Path) -> None:
    done = extracted(make_store(tmp_path / "s.zarr", failed=[3, 17], shards=3))
    assert done.num_failed == 2 + 16  # those of the shard that is not done as well
    _, nothing, failed = extract_report(done).splitlines()
    assert nothing == "nothing was left to do"
    listed = tmp_path / "s.zarr" / "failures.csv"
    assert failed == f"failed rows: 16 absent, 2 unreadable; listed in {listed}. --retry-failures tries them again"


AGAIN = "--retry-failures tries them again"
NO_PIXELS = "Where it is empty, the slide's file has no pixels: nothing helps but another file"


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        ({"OK": 5, "PEN": 3}, ""),
        ({"UNREADABLE": 2}, AGAIN),
        ({"OK": 5, "EMPTY": 3}, NO_PIXELS),
        ({"EMPTY": 3, "NO_SLIDE": 1}, f"{AGAIN}. {NO_PIXELS}"),
    ],
)
def test_rows_without_pixels_are_not_said_to_come_right(counts: dict[str, int], advice: str) -> None:
    """A tile that a sparse file lacks is missing as often as it is read."""
    assert failed_advice(counts) == advice


def test_slides_that_lost_most_of_their_patches_to_checks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 patches each 8, 10 and 12; and 9 of 9, which are too few to say anything."""
    store = make_store(tmp_path / "s.zarr", train=(16, 16, 16), val=(9,))
    a, b, c, d = (slide.slide_id for slide in store.plan.slides)
    reasons = {a: ["PEN"] * 8, b: ["PEN"] * 4 + ["DUPLICATE"] * 6, c: ["OUT_OF_FOCUS"] * 12, d: ["PEN"] * 9}
    dropped = [{"slide_id": slide, "status": name} for slide, names in reasons.items() for name in names]
    monkeypatch.setattr(Ledger, "dropped", lambda self: dropped)
    done = Extracted(store.first, 0, {"OK": 18, "PEN": 21, "DUPLICATE": 6, "OUT_OF_FOCUS": 12}, 0.0)
    *_, total, warning = extract_report(done).splitlines()
    assert total.startswith("rows dropped by --patch-qc: 21 pen, 6 duplicate, 12 out of focus; listed in ")
    named = f"{b} (10 of 16, most for duplicate), {c} (12 of 16, most for out of focus)"
    assert warning.startswith(f"warning: --patch-qc dropped most patches of 2 slides: {named}. Look at these slides")


def test_an_import_says_whether_it_is_proven(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "s.zarr").folder
    plain = import_report(extracted(Store(folder)))
    assert plain.splitlines()[:-1] == extract_report(extracted(Store(folder))).splitlines()
    assert plain.endswith("\nnot proven: see --weights")
    edit_attributes(folder, lambda a: a.update(proof={"rows": 5}))
    assert import_report(extracted(Store(folder))).endswith("\nproven on 5 patches that were embedded again")
