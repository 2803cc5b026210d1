"""Places of the machine that made a store do not leave it; everything that reads need does."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.base.errors import StoreError
from pipeline.store.store import Store
from stages.publishing.store_files import (
    files_of_store,
    require_complete_store,
    seen_barcodes,
    seen_places,
    without_folders,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/my slides/a b.svs: damaged", "a b.svs: damaged"),
        ("cannot open /mnt/lab/x/b.svs (see /var/log/y)", "cannot open b.svs (see y)"),
        ("sub/a.svs", "sub/a.svs"),
        ("C:\\slides\\a.svs is gone", "a.svs is gone"),
        ("~/slides/a.svs", "a.svs"),
        ("https://example.org/a/b, 1/2 of it", "https://example.org/a/b, 1/2 of it"),
        ("0.5 um/px", "0.5 um/px"),
        (3, 3),
        (None, None),
    ],
)
def test_folders_go_and_names_stay(text: object, expected: object) -> None:
    assert without_folders(text, "/data/my slides") == expected


def test_a_root_that_is_everything_takes_nothing_away() -> None:
    assert (
        without_folders("a/b.svs", ".")
        == without_folders("a/b.svs", "")
        == without_folders("a/b.svs", "/")
        == "a/b.svs"
    )


def test_metadata_lose_places_and_keep_the_rest(good_store: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good_store, tmp_path / "s.zarr"))
    plan = json.loads((folder / "plan" / "zarr.json").read_text())
    records = plan["attributes"]["g2l"]
    records["plan"]["slides_root"] = "/data/my slides"
    records["plan"]["audit"][0] |= {"path": "/data/my slides/x.svs", "reason": "/data/my slides/x.svs: slow"}
    records["slides"][0]["path"] = "/elsewhere/x.svs"
    (folder / "plan" / "zarr.json").write_text(json.dumps(plan))
    store = Store(folder)
    files = files_of_store(store)
    assert seen_places(files) == []
    sent = json.loads(bytes(files["plan/zarr.json"]))["attributes"]["g2l"]  # type: ignore[arg-type]
    assert sent["plan"]["slides_root"] == ""
    assert sent["plan"]["audit"][0]["reason"] == "x.svs: slow"
    assert sent["slides"][0]["path"] == "x.svs"
    assert sent["plan"]["config"] == records["plan"]["config"]
    root = json.loads(bytes(files["zarr.json"]))["attributes"]["g2l"]  # type: ignore[arg-type]
    assert "weights_file" not in root
    assert root["teacher"] == store.first.record
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk - files.keys() <= {"config.toml", "failures.csv", "dropped.csv", ".g2l-lock"}
    assert files.keys() <= on_disk


def test_places_that_the_hash_covers_are_named() -> None:
    assert seen_places({"zarr.json": b'{"source": "local-dir:/home/a/run/student"}', "x": Path("x")}) == [
        "/home/a/run/"
    ]


BARCODED = "TCGA-A1-A0SB"


@pytest.mark.parametrize(
    "change",
    [
        {"slide_id": f"{BARCODED}-01Z-00-DX1"},
        {"case_id": BARCODED},
        {"path": f"{BARCODED}-01Z-00-DX1.svs"},
        {"labels": {"note": f"see {BARCODED}-01A"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_barcodes_are_seen_wherever_the_metadata_hold_one(
    good_store: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(good_store, tmp_path / "s.zarr"))
    assert seen_barcodes(files_of_store(Store(folder))) == []
    plan = json.loads((folder / "plan" / "zarr.json").read_text())
    record = plan["attributes"]["g2l"]["slides"][0]
    assert change.keys() <= record.keys()
    record |= change
    (folder / "plan" / "zarr.json").write_text(json.dumps(plan))
    (found,) = seen_barcodes(files_of_store(Store(folder)))
    assert found.startswith(BARCODED)


def test_a_part_is_sent_to_be_merged(good_store: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good_store, tmp_path / "s.zarr"))
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"]["g2l"]["part"] = [1, 2]
    (folder / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="`g2l merge` makes one store of all parts"):
        require_complete_store(Store(folder))
