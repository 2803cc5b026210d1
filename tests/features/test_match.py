"""Which slide a file of features is of: by id, by file name, without `.ome`; what could be of two is of none."""

from pathlib import Path

import pytest

from pipeline.features.find import FeatureTree
from pipeline.features.match import Matched, match_slides

TREE = Path("f")


def match(root: Path, slides: list[str], names: list[str], manifest: str | None = None) -> Matched:
    """Slides as empty files below `root`; feature files by their names alone."""
    for path in slides:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    if manifest:
        (root / "m.csv").write_text("slide_id,path\n" + manifest)
    tree = FeatureTree(TREE, {name: TREE / f"{name}.h5" for name in names})
    return match_slides(tree, root / "m.csv" if manifest else None, root)


def pairs_of(found: Matched) -> dict[str, str]:
    return {row.path: path.relative_to("f").with_suffix("").as_posix() for row, path in found.pairs}


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


def test_two_files_that_could_be_of_one_slide_are_of_none(tmp_path: Path) -> None:
    """One by its id, one by its file's name: TRIDENT's of a slide that the manifest lacks may have that id as name."""
    found = match(tmp_path, ["p.svs", "q.svs"], ["p", "q", "s0"], "s0,p.svs\nq,q.svs\n")
    assert pairs_of(found) == {"q.svs": "q"}
    why = f"another file could be of {tmp_path}/p.svs, too. Which one is?"
    assert failed_of(found) == {"s0": f"f/s0.h5: {why}", "p": f"f/p.h5: {why}"}


def test_an_id_that_is_another_slide_s_file_name_is_of_none(tmp_path: Path) -> None:
    """TRIDENT names its files by the slides' files, others by ids: without weights, nothing else would tell."""
    found = match(tmp_path, ["s0.svs", "s1.svs", "s2.svs"], ["s0", "s1", "s2"], "s1,s0.svs\ns0,s1.svs\ns2,s2.svs\n")
    assert pairs_of(found) == {"s2.svs": "s2"}
    assert failed_of(found).keys() == {"s0", "s1"}
    assert len(found.failed) == 2
    for name, reason in failed_of(found).items():
        assert reason.startswith(f"f/{name}.h5: is it of {tmp_path}/s")
        assert f"? In {tmp_path}/m.csv, {name} is one's slide_id and the other's file. Give" in reason
    one = match(tmp_path, [], ["s0"], "s0,s1.svs\nx,s0.svs\n")
    assert (pairs_of(one), failed_of(one).keys()) == ({}, {"s0", "x"})


def test_an_ome_tiff_s_short_name_is_not_another_s_by_a_manifest(tmp_path: Path) -> None:
    """As `make-manifest` writes it: nobody has told them apart."""
    found = match(tmp_path, ["s0.ome.tif", "s0.svs"], ["s0"], "s0,s0.svs\ns0.ome,s0.ome.tif\n")
    assert (pairs_of(found), failed_of(found).keys()) == ({}, {"s0", "s0.ome"})


@pytest.mark.parametrize("manifest", [None, "s0,b/s0.svs\nx,a/s0.svs\ny,s0.svs\nz,s2.svs\n", "absolute"])
def test_stamp_s_files_of_one_name_are_told_apart_by_their_places(tmp_path: Path, manifest: str | None) -> None:
    slides = ["a/s0.svs", "b/s0.svs", "s0.svs", "s2.svs"]
    if manifest == "absolute":
        manifest = "".join(f"{i},{tmp_path}/{path}\n" for i, path in enumerate(slides))
    found = match(tmp_path, slides, ["./s0", "a/s0", "b/s0", "s2"], manifest)
    paths = {path.removeprefix(f"{tmp_path}/"): name for path, name in pairs_of(found).items()}
    assert paths == {"a/s0.svs": "a/s0", "b/s0.svs": "b/s0", "s0.svs": "s0", "s2.svs": "s2"}
    assert failed_of(found) == {}


def test_one_of_stamp_s_files_finds_its_slide_of_several_of_one_name(tmp_path: Path) -> None:
    found = match_slides(FeatureTree(TREE, {"s0": Path("f/a/s0.h5"), "s2": Path("f/s2.h5")}), None, slides_at(tmp_path))
    assert pairs_of(found) == {"a/s0.svs": "a/s0", "s2.svs": "s2"}
    assert failed_of(found) == {"b__s0.svs": f"{tmp_path}/b/s0.svs: no file of features for this slide"}
    flat = match_slides(
        FeatureTree(TREE / "a", {"s0": Path("f/a/s0.h5"), "s2": Path("f/a/s2.h5")}), None, slides_at(tmp_path)
    )
    assert failed_of(flat).keys() == {"a__s0.svs", "b__s0.svs"}  # the folder of another tool says nothing


def slides_at(root: Path) -> Path:
    for path in ("a/s0.svs", "b/s0.svs", "s2.svs"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    return root


@pytest.mark.parametrize(("named", "prefix"), [("", ""), ("in", ""), ("in/cohort", "cohort/"), ("in/cohort", "")])
def test_stamp_read_another_folder_of_slides_than_is_named(tmp_path: Path, named: str, prefix: str) -> None:
    """One above or below it: a file's place is the end of the slide's path then."""
    match(tmp_path / "in" / "cohort", ["a/s0.svs", "b/s0.svs", "s1.svs"], [])
    files = {f"{prefix}{name}": TREE / f"{prefix}{name}.h5" for name in ("a/s0", "b/s0")}
    files["s1"] = TREE / f"{prefix}s1.h5"
    found = match_slides(FeatureTree(TREE, files), None, tmp_path / named)
    of = {(tmp_path / named / row.path).relative_to(tmp_path).as_posix(): path for row, path in found.pairs}
    assert of == {f"in/cohort/{name}.svs": TREE / f"{prefix}{name}.h5" for name in ("a/s0", "b/s0", "s1")}


def test_stamp_s_files_of_one_name_without_slides_at_their_places_fail_and_the_others_go_on(tmp_path: Path) -> None:
    found = match(tmp_path, ["s0.svs", "s2.svs"], ["a/s0", "b/s0", "s2"])
    assert pairs_of(found) == {"s2.svs": "s2"}
    assert failed_of(found).keys() == {"s0", "b/s0"}
    assert "as this file does below f, and other files have this name" in failed_of(found)["s0"]
    twice = match(tmp_path, ["x/a/s0.svs"], ["a/s0", "x/a/s0", "s2"], "u,x/a/s0.svs\nv,s2.svs\n")
    assert pairs_of(twice) == {"s2.svs": "s2"}
    assert failed_of(twice).keys() == {"u", "x/a/s0"}


def test_two_slides_at_the_end_of_a_path_are_told_apart_by_none(tmp_path: Path) -> None:
    """STAMP may have read the named folder or one in it, as another of its files shows."""
    found = match(tmp_path, ["a/s0.svs", "in/a/s0.svs", "in/b/s1.svs"], ["a/s0", "b/s1"])
    assert {row.path for row, _ in found.pairs} == {"in/b/s1.svs"}
    assert failed_of(found).keys() == {"a__s0.svs", "in__a__s0.svs"}


def test_a_file_in_a_subfolder_is_of_no_slide_in_another_where_subfolders_are_kept(tmp_path: Path) -> None:
    found = match(tmp_path, ["b/s0.svs", "b/s1.svs"], ["a/s0", "b/s1"])
    assert pairs_of(found) == {"b/s1.svs": "b/s1"}
    assert failed_of(found).keys() == {"s0"}
    assert f"no slide of this name lies below {tmp_path} as this file does below f, and other" in failed_of(found)["s0"]
    moved = match(tmp_path, [], ["a/s0", "a/s1"])  # none is where it was: the slides have been moved
    assert pairs_of(moved) == {"b/s0.svs": "a/s0", "b/s1.svs": "a/s1"}


def test_what_a_manifest_s_reader_must_know_is_told(tmp_path: Path) -> None:
    (tmp_path / "s0.svs").touch()
    (tmp_path / "m.csv").write_text("slide_id,path,patient\ns0,s0.svs,p\n")
    found = match_slides(FeatureTree(TREE, {"s0": TREE / "s0.h5"}), tmp_path / "m.csv", tmp_path)
    assert found.notes == (f"{tmp_path / 'm.csv'}: the column patient is taken for case_id",)
