"""The last file of a slide carries the mark: it tells a finished slide from others, whatever the layout."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import toy_tool
from support.embedded import ENCODER, GRID, embedded

from pipeline.base.errors import BenchmarkError, EmbedError
from pipeline.features.layouts import MARK, Mark, Place, changed_since, encoder_folder, hdf5_mark, json_mark


def test_names_of_encoders_fit_in_names_of_folders() -> None:
    assert encoder_folder("hf-hub:owner/name v2") == "hf-hub_owner_name_v2"
    assert encoder_folder("../..") == "encoder"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("uni", "uni"), ("a/../b", "a_.._b"), ("_x_", "x"), ("", "encoder"), ("\u00e9", "encoder"), ("a\nb", "a_b")],
)
def test_a_folder_s_name_leads_nowhere_else(name: str, folder: str) -> None:
    assert encoder_folder(name) == folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder of a toy's files."""
    assert toy_tool.TOOL.writer is not None
    return Place(tmp_path, toy_tool.TOOL.writer, ENCODER, GRID)


def test_the_mark_counts_patches_and_hashes_what_is_stored() -> None:
    slide = embedded("even", "float32")
    mark = slide.mark({"vectors": 3})
    assert (mark.rows, mark.failed, mark.files) == (9, 2, {"vectors": 3})
    for change in ("features", "coords_l0_px"):
        other = embedded("even", "float32")
        getattr(other, change)[0, 0] += 1
        changed = other.mark({}).sha256
        kind = change.removesuffix("_l0_px")
        assert {name for name, digest in changed.items() if digest != mark.sha256[name]} == {kind}


def test_the_hash_of_a_mark_is_of_model_settings_and_slide() -> None:
    mark = embedded("even", "float32").mark({})
    text = json.loads(mark.text())
    fewer = json.loads(Mark(mark.made_by, mark.slide, 1, 0, {}, {}).text())
    assert fewer["hash"] == text["hash"]
    assert json.loads(Mark(mark.made_by, {"slide_id": "x"}, 9, 2, {}, {}).text())["hash"] != text["hash"]
    assert text["version"] == 1


def rewrite(place: Place, **changes: object) -> Path:
    """Change the mark of a written slide."""
    path = place.marked_file("even")
    about = json.loads(path.read_text())
    about[MARK] = json.dumps(json.loads(about[MARK]) | changes)
    path.write_text(json.dumps(about))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": -1},
        {"rows": "9"},
        {"failed": 1.5},
        {"made_by": []},
        {"files": None},
        {"later": 1},
        {"sha256": "x"},
        {"files": {"vectors": 1}},
    ],
)
def test_a_mark_of_other_values_is_no_finished_slide(place: Place, changes: dict[str, object]) -> None:
    place.write(embedded("even", "float32"))
    assert place.read_mark("even") is not None
    rewrite(place, **changes)
    assert place.read_mark("even") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_mark_that_is_no_record_is_no_finished_slide(place: Place, text: str) -> None:
    place.write(embedded("even", "float32"))
    place.marked_file("even").write_text(json.dumps({MARK: text}))
    assert place.read_mark("even") is None


def test_a_mark_of_another_version_is_not_overwritten(place: Place) -> None:
    place.write(embedded("even", "float32"))
    path = rewrite(place, version=2)
    with pytest.raises(EmbedError, match=rf"{path.name} is of another version of g2l embed"):
        place.read_mark("even")


def test_the_mark_is_asked_for_once_the_other_files_are_there(tmp_path: Path) -> None:
    """However often a writer asks: it is made once, with the bytes of the files then."""
    assert toy_tool.TOOL.writer is not None
    place = Place(tmp_path, toy_tool.TOOL.writer, ENCODER, GRID)
    mark = place.write(embedded("even", "float32"))
    assert mark.files == {"vectors": place.files("even")["vectors"].stat().st_size}
    assert place.read_mark("even") == mark


def test_marks_are_read_from_hdf5_and_json(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["features"], f.attrs[MARK] = np.ones(3), "text"
    with h5py.File(tmp_path / "b.h5", "w") as f:
        f["features"] = np.ones(3)
        f["features"].attrs[MARK] = "not the file's"
    (tmp_path / "a.json").write_text(json.dumps({MARK: "text"}))
    (tmp_path / "b.json").write_text("{}")
    assert [hdf5_mark(tmp_path / f"{name}.h5") for name in "ab"] == ["text", None]
    assert [json_mark(tmp_path / f"{name}.json") for name in "ab"] == ["text", None]
    for read, name in ((hdf5_mark, "c.h5"), (json_mark, "c.json")):
        (tmp_path / name).write_bytes(b"cut short")
        with pytest.raises(BenchmarkError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_not_as_it_was_written_is_named(dtype: str) -> None:
    slide = embedded("even", dtype)
    text, features, coords = slide.mark({}).text(), slide.features, slide.coords_l0_px
    assert changed_since(text, features, coords) == changed_since(text, features, None) == []
    assert changed_since(text, features.astype(np.float32), coords.astype(np.int32)) == []
    bits = features.copy()
    bits.view(np.uint8)[3, 0] ^= 1
    assert changed_since(text, bits, coords) == changed_since(text, features[1:], coords) == ["features"]
    assert changed_since(text, bits, coords + 1) == ["features", "coords"]
    assert changed_since(text, features, coords[::-1]) == ["coords"]
    assert changed_since(text, features, coords * 0.5) == []  # in um
    assert changed_since(None, bits, coords) == []
    assert changed_since(text.replace('"version": 1', '"version": 2'), bits, coords) == []
    for damaged in ("", "{}", text.replace("sha256", "sha257")):
        with pytest.raises((ValueError, KeyError)):
            changed_since(damaged, features, coords)
