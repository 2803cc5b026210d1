"""What stage one says at its end: how much there is, how fast it was, what failed, and whether an import is proven."""

from pathlib import Path

from support.store_writing import edit_attributes
from support.stores import make_store

from pipeline.store.store import Store
from stages.reports.extract import Extracted, extract_report, import_report


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


def test_an_import_says_whether_it_is_proven(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "s.zarr").folder
    plain = import_report(extracted(Store(folder)))
    assert plain.splitlines()[:-1] == extract_report(extracted(Store(folder))).splitlines()
    assert plain.endswith("\nnot proven: see --weights")
    edit_attributes(folder, lambda a: a.update(proof={"rows": 5}))
    assert import_report(extracted(Store(folder))).endswith("\nproven on 5 patches that were embedded again")
