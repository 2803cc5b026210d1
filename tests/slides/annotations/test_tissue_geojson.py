"""Tissue as GeoJSON for QuPath: exact there and back, corrected files count, wrong ones are named."""

import json
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import support.slides as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.annotated import write_geojson

from pipeline.base.errors import SlideError
from pipeline.config.groups import AnnotationOrigin, TissueFiles
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import ARTEFACT_RULES, RULE_NAMES
from pipeline.slides.annotations.on_grid import eligible_grid
from pipeline.slides.annotations.read import read_annotations
from pipeline.slides.annotations.tissue_geojson import (
    CLASS_COLOURS,
    corrected_path,
    is_as_written,
    tissue_from_file,
    write_tissue,
    written_corner,
)
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, find_tissue, reason_of
from pipeline.slides.whole_slide import read_whole

SIZE_L0_PX = (700, 500)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """A slide of which the last mask pixels, of 16 x 16, lie partly beyond its edges; at 0.45 um/px they have 17.78."""
    path = sf.make_slide(tmp_path_factory.mktemp("s") / "a.svs", width=700, height=500, mpp=0.5, downsamples=(1,))
    return Slide(path)


def of_mask(slide: Slide, mask: np.ndarray, unreadable: np.ndarray | None = None) -> TissueMask:
    whole = read_whole(slide)
    thumbnail, pixel_l0_px = whole.image, whole.pixel_l0_px
    return TissueMask(mask, pixel_l0_px, np.zeros_like(mask) if unreadable is None else unreadable, thumbnail)


@pytest.mark.parametrize(("written", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_whose_name_has_its_accents_encoded_otherwise(
    slide: Slide, tmp_path: Path, written: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    """As where QuPath on a Mac exported it: it was "no such file", though a listing shows it."""
    file_id, slide_id = (unicodedata.normalize(form, "Müller Präparat 3") for form in (written, asked))
    found = find_tissue(slide)
    write_tissue(found, file_id, tmp_path)
    back, notes = tissue_from_file(slide, slide_id, tmp_path)
    np.testing.assert_array_equal(back.mask, found.mask)
    assert notes == ()
    assert corrected_path(tmp_path, slide_id).name == f"{file_id}.geojson"
    write_tissue(replace(found, mask=~found.mask), slide_id, tmp_path)  # a file of the very name comes first
    np.testing.assert_array_equal(tissue_from_file(slide, slide_id, tmp_path)[0].mask, ~found.mask)


def test_what_the_finder_found_comes_back(slide: Slide, tmp_path: Path) -> None:
    found = find_tissue(slide)
    assert found.mask.any()
    write_tissue(found, "a", tmp_path)
    back, notes = tissue_from_file(slide, "a", tmp_path)
    np.testing.assert_array_equal(back.mask, found.mask)
    np.testing.assert_array_equal(back.thumbnail, found.thumbnail)
    assert back.pixel_l0_px == found.pixel_l0_px
    assert not back.unreadable.any()
    assert notes == ()


def test_a_file_is_as_written_until_somebody_changes_it(slide: Slide, tmp_path: Path) -> None:
    path = corrected_path(tmp_path, "a")
    assert not is_as_written(path, "a")
    write_tissue(find_tissue(slide), "a", tmp_path)
    written = path.read_text()
    assert is_as_written(path, "a")
    assert not is_as_written(path, "b")
    collection = json.loads(written)
    moved = json.loads(written)
    moved["features"][0]["id"] = "4a7a5f0c-0000-4000-8000-000000000000"  # as QuPath gives a new object
    others = [json.dumps(collection, indent=2), json.dumps(collection, separators=(",", ":")), json.dumps(moved) + "\n"]
    for text in (*others, "", "[]", "{}", '{"features": [1]}', "[" * 100_000):
        path.write_text(text)
        assert not is_as_written(path, "a")


def test_a_slide_that_was_scanned_whole_has_no_scanned_part(slide: Slide, tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", Tissue=(2000, 0, 64, 64))
    with pytest.raises(SlideError, match=r"lies beyond slide a, which has .*not pixels of level 0$"):
        tissue_from_file(slide, "a", tmp_path)


@settings(max_examples=30)
@given(mask=hnp.arrays(bool, (32, 44)))
def test_any_mask_comes_back(slide: Slide, tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
    mask[0, 0] = True
    folder = tmp_path_factory.mktemp("t")
    write_tissue(of_mask(slide, mask), "a", folder)
    np.testing.assert_array_equal(tissue_from_file(slide, "a", folder)[0].mask, mask)


@settings(max_examples=30)
@given(kinds=hnp.arrays(np.uint8, (32, 44), elements=st.integers(0, 6)))
def test_what_rules_for_artefacts_dropped_comes_back(
    slide: Slide, tmp_path_factory: pytest.TempPathFactory, kinds: np.ndarray
) -> None:
    """Any mask of glass (0), tissue (1) and the five rules, which `--max-artefact` counts; other rules mean nothing."""
    kinds[0, 0] = 1
    numbers = np.array([0, 0, *(reason_of(rule) for rule in ARTEFACT_RULES)], np.uint8)
    found = replace(of_mask(slide, kinds == 1), reasons=numbers[kinds], rules=RULE_NAMES)
    found.reasons[kinds == 0] = reason_of("specks")
    folder = tmp_path_factory.mktemp("t")
    write_tissue(found, "a", folder)
    back, notes = tissue_from_file(slide, "a", folder)
    np.testing.assert_array_equal(back.mask, kinds == 1)
    np.testing.assert_array_equal(back.reasons, numbers[kinds])
    assert list(back.rules) == [rule for rule in ARTEFACT_RULES if (back.reasons == reason_of(rule)).any()]
    assert notes == ()


def test_what_is_drawn_as_an_artefact_is_no_tissue(slide: Slide, tmp_path: Path) -> None:
    """Also where the outline of the tissue was left as it was."""
    write_geojson(tmp_path / "a.geojson", **{"Tissue": (0, 0, 160, 160), "Artefact pen": (64, 0, 256, 64)})
    back, _ = tissue_from_file(slide, "a", tmp_path)
    drawn = np.zeros((32, 44), bool)
    drawn[:4, 4:20] = True
    expected = np.zeros((32, 44), bool)
    expected[:10, :10] = True
    np.testing.assert_array_equal(back.dropped_by("pen"), drawn)
    np.testing.assert_array_equal(back.mask, expected & ~drawn)


@pytest.mark.parametrize("mpp", [0.45, 0.2501])
def test_mask_pixels_of_a_broken_width_come_back(tmp_path: Path, mpp: float) -> None:
    slide = Slide(sf.make_slide(tmp_path / "b.svs", width=1402, height=1006, mpp=mpp, downsamples=(1, 4)))
    found = find_tissue(slide)
    assert found.mask.any()
    write_tissue(found, "b", tmp_path)
    np.testing.assert_array_equal(tissue_from_file(slide, "b", tmp_path)[0].mask, found.mask)


@pytest.mark.parametrize("origin", ["auto", "slide"])
def test_a_slide_with_a_scanned_part_is_written_as_qupath_shows_it(tmp_path: Path, origin: AnnotationOrigin) -> None:
    """QuPath opens the scanned part alone, and counts from its corner."""
    scanned = (501, 300, 1000, 700)
    slide = Slide(sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=scanned))
    found = find_tissue(slide)
    corner = written_corner(slide, origin)
    assert corner == ((501, 300) if origin == "auto" else (0, 0))
    write_tissue(found, "a", tmp_path, corner)
    collection = json.loads((tmp_path / "a.geojson").read_text())
    low = np.min([point for one in collection["features"] for point in one["geometry"]["coordinates"][0]], axis=0)
    first = np.argwhere(found.mask).min(axis=0)[::-1] * found.pixel_l0_px
    np.testing.assert_allclose(low, first - corner)
    np.testing.assert_array_equal(tissue_from_file(slide, "a", tmp_path, origin)[0].mask, found.mask)


def test_the_file_is_what_qupath_reads(slide: Slide, tmp_path: Path) -> None:
    mask, unreadable = np.zeros((32, 44), bool), np.zeros((32, 44), bool)
    mask[2:10, 3:9], unreadable[8:10, 3:9] = True, True
    mask[4, 5] = False
    write_tissue(of_mask(slide, mask, unreadable), "a", tmp_path)
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    tissue, bad = collection["features"]
    assert tissue["geometry"]["type"] == "Polygon"
    outline, hole = tissue["geometry"]["coordinates"]
    assert outline == [[48, 32], [144, 32], [144, 160], [48, 160], [48, 32]]
    assert sorted(hole[:-1]) == [[80, 64], [80, 80], [96, 64], [96, 80]]
    assert hole[0] == hole[-1]
    for one, name in ((tissue, "Tissue"), (bad, "Unreadable")):
        assert one["properties"] == {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(CLASS_COLOURS[name])},
        }
    assert tissue["id"] != bad["id"]
    text = (tmp_path / "a.geojson").read_text()
    write_tissue(of_mask(slide, mask, unreadable), "a", tmp_path)
    assert (tmp_path / "a.geojson").read_text() == text
    found = read_annotations(tmp_path / "a.geojson", size_l0_px=SIZE_L0_PX, mpp=0.5, slide_names={"a"})
    assert found.classes == ("Tissue", "Unreadable")
    whole = found.fractions(("Tissue",), np.array([[48, 32]]), 96.0)
    assert whole[0, 0] == pytest.approx(1 - 1 / 36)


def test_a_corrected_file_is_the_tissue(slide: Slide, tmp_path: Path) -> None:
    """A mask pixel counts if its centre is within the class Tissue; other classes mean nothing, which is said."""
    write_geojson(tmp_path / "a.geojson", Tissue=[(7.9, 0, 100, 40), (96, 0, 100, 23.9)], Ignore=(0, 0, 700, 500))
    expected = np.zeros((32, 44), bool)
    expected[:2, :7] = True
    expected[:1, 6:12] = True
    expected[1, 6] = True  # its centre, (104, 24), is in the first box
    back, notes = tissue_from_file(slide, "a", tmp_path)
    np.testing.assert_array_equal(back.mask, expected)
    assert notes == ("a.geojson of --tissue-from: of no class that counts here: Ignore (0.0875 mm2)",)


@pytest.mark.parametrize("scale", [1, 0.5, 0.25], ids=["level 0", "um", "level 1"])
def test_tissue_in_other_units_is_told_and_not_called_grey(slide: Slide, tmp_path: Path, scale: float) -> None:
    """Outlines in um, or in pixels of another level, lie on glass. Only a slide without any colour is grey."""
    write_tissue(find_tissue(slide), "a", tmp_path)
    collection = json.loads((tmp_path / "a.geojson").read_text())
    for feature in collection["features"]:
        rings = feature["geometry"]["coordinates"]
        feature["geometry"]["coordinates"] = [[[scale * x, scale * y] for x, y in ring] for ring in rings]
    (tmp_path / "a.geojson").write_text(json.dumps(collection))
    grid, sampling = PlanConfig(patch_px=32, min_tissue=0.1).grid, PlanConfig().sampling
    laid = eligible_grid(slide, "a", None, grid, sampling, TissueFiles(tmp_path))
    assert len(laid.coords_l0_px)
    if scale == 1:
        assert laid.warnings == ()
    else:
        (warning,) = laid.warnings
        assert re.match(
            r"only \d+% of the area of class Tissue of --tissue-from looks like tissue: .* level 0", warning
        )


def test_what_a_person_draws_without_a_class_is_said_to_be_unused(slide: Slide, tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", Tissue=(0, 0, 64, 64))
    collection = json.loads((tmp_path / "a.geojson").read_text())
    drawn = json.loads(json.dumps(collection["features"][0]))
    del drawn["properties"]["classification"]
    (tmp_path / "a.geojson").write_text(json.dumps({**collection, "features": [*collection["features"], drawn]}))
    _, (note,) = tissue_from_file(slide, "a", tmp_path)
    assert note.endswith("of no class that counts here: Unclassified (0.00102 mm2)")


def test_a_missing_or_wrong_file_is_named(slide: Slide, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"a\.geojson: no such file, and --tissue-from takes"):
        tissue_from_file(slide, "a", tmp_path)
    write_geojson(corrected_path(tmp_path, "a"), tissue=(0, 0, 99, 99))
    with pytest.raises(SlideError, match=r"no class Tissue, which --tissue-from asks for; it has tissue"):
        tissue_from_file(slide, "a", tmp_path)
    corrected_path(tmp_path, "a").write_text("{")
    with pytest.raises(SlideError, match=r"a\.geojson"):
        tissue_from_file(slide, "a", tmp_path)


def test_tissue_in_another_spelling_is_tissue_and_in_other_capitals_is_not(slide: Slide, tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", **{" Tissue\u00a0": (0, 0, 512, 512)})
    assert tissue_from_file(slide, "a", tmp_path)[0].mask.any()
    write_geojson(tmp_path / "a.geojson", tissue=(0, 0, 512, 512))
    with pytest.raises(SlideError, match=r"no class Tissue, .*; it has tissue, and capitals count$"):
        tissue_from_file(slide, "a", tmp_path)


@pytest.mark.timeout(20)  # a pipe would be waited for without end
def test_what_is_no_file_is_said_and_not_waited_for(slide: Slide, tmp_path: Path) -> None:
    (tmp_path / "f" / "a.geojson").mkdir(parents=True)
    (tmp_path / "p").mkdir()
    os.mkfifo(tmp_path / "p" / "a.geojson")
    for folder, words in (("f", "it is a folder, not a file"), ("p", "it is a pipe or device, not a file")):
        with pytest.raises(SlideError, match=rf"{folder}/a\.geojson: {words}, and --tissue-from takes") as caught:
            tissue_from_file(slide, "a", tmp_path / folder)
        assert caught.value.about == "tissue"
