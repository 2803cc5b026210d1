"""Which slide a file of features is of: by id, by file name, without `.ome`; what could be of two is of none."""

from pathlib import Path

import pytest

from pipeline.import_match import Matched, match_slides
from pipeline.tool_config import ImportConfig


def match(root: Path, slides: list[str], names: list[str], manifest: str | None = None) -> Matched:
    """Slides as empty files below `root`; files of features by their names alone."""
    for path in slides:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    values = {"slides_root": root, "teacher": "uni"}
    if manifest:
        (root / "m.csv").write_text("slide_id,path\n" + manifest)
        values["manifest"] = root / "m.csv"
    return match_slides({name: Path(f"f/{name}.h5") for name in names}, ImportConfig.build(values))


def pairs_of(found: Matched) -> dict[str, str]:
    return {row.path: path.stem for row, path in found.pairs}


def failed_of(found: Matched) -> dict[str, str]:
    return {slide.audit.slide_id: slide.audit.reason for slide in found.failed}


@pytest.mark.parametrize("name", ["s0", "s0.ome"])
def test_an_ome_tiff_is_known_by_trident_s_name_and_by_its_stem(tmp_path: Path, name: str) -> None:
    found = match(tmp_path, ["s0.ome.tif", "s1.svs"], [name, "s1"])
    assert (pairs_of(found), failed_of(found)) == ({"s0.ome.tif": name, "s1.svs": "s1"}, {})


def test_a_name_that_an_ome_tiff_and_another_could_have_is_of_none(tmp_path: Path) -> None:
    found = match(tmp_path, ["s0.ome.tif", "s0.svs", "s1.svs"], ["s0", "s1"])
    assert pairs_of(found) == {"s1.svs": "s1"}
    assert failed_of(found).keys() == {"s0", "s0.ome"}
    assert all(f"{tmp_path}/s0.svs or {tmp_path}/s0.ome.tif?" in reason for reason in failed_of(found).values())
    both = match(tmp_path, [], ["s0", "s0.ome", "s1"])  # whose file is named in full lends its name to nobody
    assert (pairs_of(both), failed_of(both)) == ({"s0.ome.tif": "s0.ome", "s0.svs": "s0", "s1.svs": "s1"}, {})


def test_an_id_of_a_manifest_is_nobody_else_s_name(tmp_path: Path) -> None:
    found = match(tmp_path, ["a/s0.svs", "b/s0.svs"], ["s0"], "s0,b/s0.svs\nx,a/s0.svs\n")
    assert pairs_of(found) == {"b/s0.svs": "s0"}
    assert failed_of(found) == {"x": f"{tmp_path}/a/s0.svs: no file of features for this slide"}
    unclear = match(tmp_path, [], ["s0"], "y,b/s0.svs\nx,a/s0.svs\n")
    assert failed_of(unclear).keys() == {"x", "y"}


def test_a_name_of_two_slides_that_have_other_files_fails_by_itself(tmp_path: Path) -> None:
    """As `g2l embed` names them."""
    found = match(tmp_path, ["a/s0.svs", "b/s0.svs"], ["a__s0.svs", "b__s0.svs", "s0", "stray"])
    assert pairs_of(found) == {"a/s0.svs": "a__s0.svs", "b/s0.svs": "b__s0.svs"}
    assert failed_of(found).keys() == {"s0", "stray"}
    assert "a/s0.svs or" in failed_of(found)["s0"]
    assert failed_of(found)["stray"] == f"f/stray.h5: no slide stray in {tmp_path}"


def test_a_second_file_of_a_slide_is_named(tmp_path: Path) -> None:
    found = match(tmp_path, ["p.svs"], ["p", "s0"], "s0,p.svs\n")
    assert pairs_of(found) == {"p.svs": "p"}
    assert failed_of(found) == {"s0": "f/s0.h5: the slide has another file"}
