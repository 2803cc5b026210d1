"""Patches by the classes of annotations: counted on rectangles, where shares are simple arithmetic."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.annotated import Box, write_geojson

from pipeline.config.class_rules import ClassRules
from pipeline.config.groups import Sampling
from pipeline.config.plan import PlanConfig
from pipeline.sampling import sample_patches
from pipeline.slides.annotations.on_grid import sample_on_grid, source_of_notes, within_classes
from pipeline.slides.annotations.patch_classes import PatchClasses
from pipeline.slides.annotations.read import read_annotations
from pipeline.slides.annotations.regions import Annotations
from pipeline.slides.reader import Slide
from pipeline.slides.tissue_grid import TissueGrid, lay_grid

BOXES: dict[str, Box] = {
    "left": (0, 0, 352, 512),  # half of the sixth column of patches
    "right": (352, 0, 352, 512),
    "over": (320, 0, 64, 512),  # the sixth column
    "spot": (10, 10, 4, 4),
}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> TissueGrid:
    """The whole grid of a slide: 11 x 8 patches of 64 px, all of level 0."""
    path = sf.make_slide(tmp_path_factory.mktemp("s") / "a.svs", width=704, height=512, mpp=0.5, downsamples=(1,))
    return lay_grid(Slide(path), PlanConfig(patch_px=64, min_tissue=0).grid)


def rules(**options: object) -> Sampling:
    return Sampling(None, 0, 0.1, classes=ClassRules(**options))  # type: ignore[arg-type]


def read_boxes(folder: Path, **boxes: Box) -> Annotations:
    path = write_geojson(folder / "a.geojson", **boxes)
    return read_annotations(path, size_l0_px=(704, 512), mpp=0.5, slide_names={"a"})


def columns(grid: TissueGrid) -> list[int]:
    assert len(grid.coords_l0_px) == len(grid.tissue_fraction)
    if grid.classes:
        assert len(grid.classes.fractions) == len(grid.coords_l0_px)
    return sorted({int(x) // 64 for x in grid.coords_l0_px[:, 0]})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(11)),
        ({"include": ("left",)}, range(6)),
        ({"include": ("left",), "min_class": 0.51}, range(5)),
        ({"include": ("left", "right"), "min_class": 1.0}, range(11)),  # together: neither has the sixth alone
        ({"include": ("left", "over"), "min_class": 1.0}, range(6)),  # where they overlap, area counts once
        ({"exclude": ("left",)}, range(6, 11)),
        ({"exclude": ("left",), "max_excluded": 0.5}, range(5, 11)),
        ({"include": ("over",), "exclude": ("spot",)}, [5]),
        ({"include": ("left",), "exclude": ("over",)}, range(5)),
    ],
    ids=str,
)
def test_patches_are_kept_by_their_share(
    grid: TissueGrid, tmp_path: Path, options: dict[str, object], expected: range
) -> None:
    path = write_geojson(tmp_path / "a.geojson", **BOXES)
    annotations = read_annotations(path, size_l0_px=(704, 512), mpp=0.5, slide_names={"a"})
    kept = within_classes(grid, annotations, rules(**options))
    assert columns(kept) == list(expected)
    assert kept.classes is not None
    assert kept.classes.names == ("left", "over", "right", "spot")
    sixth = kept.coords_l0_px[:, 0] == 320
    assert sixth.any() == (5 in expected)
    assert (kept.classes.fractions[sixth] == np.array([0.5, 1, 0.5, 0], np.float32)).all()
    if 0 in expected and not options:
        assert kept.classes.fractions[0].tolist() == [1, 0, 0, np.float32(0.0039)]  # 16 of 4,096 pixels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"include": ("tumour",)}, "its annotations have no tumour (--include); they have left, over, right, spot"),
        ({"include": ("spot",)}, "no patch on tissue has 50% of its area in spot (--include, --min-class)"),
        ({"exclude": ("left", "right")}, "every patch left has more than 0% of its area in left, right (--exclude)"),
    ],
)
def test_a_slide_without_patches_says_why(
    grid: TissueGrid, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    path = write_geojson(tmp_path / "a.geojson", **BOXES)
    annotations = read_annotations(path, size_l0_px=(704, 512), mpp=0.5, slide_names={"a"})
    none = within_classes(grid, annotations, rules(**options))
    assert columns(none) == []
    assert none.why_empty == words


def test_a_slide_without_annotations(grid: TissueGrid) -> None:
    assert within_classes(grid, None, rules()) is grid
    none = within_classes(grid, None, rules(include=("a", "b")))
    assert columns(none) == []
    assert none.why_empty == "the manifest gives it no annotations, and --include asks for a, b"
    kept = within_classes(grid, None, rules(exclude=("a",)))
    assert columns(kept) == list(range(11))
    assert kept.warnings == ("it has no annotations, so --exclude drops nothing",)
    by_class = within_classes(grid, None, Sampling(None, 0, 0.1, method="class"))
    assert by_class.warnings == ("it has no annotations, so its sample is uniform",)


def test_shares_are_rounded_to_four_decimals_before_the_rules_see_them(grid: TissueGrid, tmp_path: Path) -> None:
    annotations = read_boxes(tmp_path, most=(0, 0, 31.999, 512))  # 0.499984 of the first column of patches
    for options in ({"include": ("most",), "min_class": 0.5}, {"exclude": ("most",), "max_excluded": 0.4999}):
        kept = within_classes(grid, annotations, rules(**options))
        assert (0 in columns(kept)) == ("include" in options)
    shares = within_classes(grid, annotations, rules()).classes.fractions  # type: ignore[union-attr]
    assert set(shares.ravel().tolist()) == {0.0, 0.5}


def test_annotations_without_a_region_are_told(grid: TissueGrid, tmp_path: Path) -> None:
    (tmp_path / "s.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    empty = read_annotations(tmp_path / "s.geojson", size_l0_px=(704, 512), mpp=0.5, slide_names={"s"})
    sampling = Sampling(None, 0, 0.1, method="class", classes=ClassRules(exclude=("tumour",)))
    kept = within_classes(grid, empty, sampling)
    assert len(kept.coords_l0_px) == len(grid.coords_l0_px)
    assert kept.warnings == (
        "its annotations have no region, so --exclude drops nothing",
        "its annotations have no region, so its sample is uniform",
    )


def test_the_sample_is_drawn_as_the_options_say() -> None:
    coords = np.stack([np.arange(100) * 64, np.zeros(100, np.int64)], axis=1)
    fractions = np.zeros((100, 2), np.float32)
    fractions[:10, 0], fractions[10:, 1] = 0.75, 0.5
    classes = PatchClasses(("a", "b"), fractions)
    uniform = sample_patches("s", coords, 20, 4)

    def number_of_a(**options: object) -> int:
        method = Sampling(20, 4, 0.1, method="class", classes=ClassRules(**options))  # type: ignore[arg-type]
        return int((sample_on_grid("s", coords, classes, method) < 10).sum())

    np.testing.assert_array_equal(sample_on_grid("s", coords, classes, Sampling(20, 4, 0.1)), uniform)
    by_class = Sampling(20, 4, 0.1, method="class")
    np.testing.assert_array_equal(sample_on_grid("s", coords, None, by_class), uniform)
    assert number_of_a() == 10
    assert number_of_a(quotas=(("a", 1.0), ("b", 4.0))) == 4
    assert number_of_a(quotas=(("b", 1.0), ("c", 1.0))) == 0  # `b` alone has a quota, and patches enough
    assert number_of_a(min_class=0.6) == 10  # no patch is of `b`: they fill up


def test_a_class_in_other_capitals_is_another_class_and_that_is_said(grid: TissueGrid, tmp_path: Path) -> None:
    annotations = read_boxes(tmp_path, Tumor=(0, 0, 352, 512))
    laid = within_classes(grid, annotations, rules(include=("tumor",)))
    assert laid.of_class == "its annotations have no tumor (--include); they have Tumor, and capitals count"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exclude": ("Left",)}, "--exclude Left: its annotations have no such class; there is left, and capitals"),
        ({"include": ("Left", "right")}, "--include Left: its annotations have no such class; there is left"),
        ({"quotas": (("Left", 1.0), ("right", 1.0))}, "--class-quota Left: its annotations have no such class"),
        ({"quotas": (("other", 1.0),)}, "no class of --class-quota, so its sample is uniform; they have left, right"),
        ({"exclude": ("other",)}, ""),  # a slide need not have each class
        ({"quotas": (("other", 1.0), ("left", 1.0))}, ""),
    ],
    ids=str,
)
def test_classes_of_options_that_a_slide_has_otherwise_are_told(
    grid: TissueGrid, tmp_path: Path, options: dict[str, object], told: str
) -> None:
    """They dropped and counted nothing there, without a word in the audit."""
    annotations = read_boxes(tmp_path, left=BOXES["left"], right=BOXES["right"])
    sampling = replace(rules(**options), method="class" if "quotas" in options else "uniform")
    notes = within_classes(grid, annotations, sampling).annotation_notes
    assert told in " ".join(notes)
    assert bool(notes) == bool(told)


def test_what_a_slides_warnings_are_of(grid: TissueGrid, tmp_path: Path) -> None:
    annotations = read_boxes(tmp_path, Tumor=(0, 0, 352, 512))
    noted = replace(annotations, notes=("mended",))
    empty = replace(grid, coords_l0_px=grid.coords_l0_px[:0])
    from_file = replace(grid, annotation_notes=("a.geojson of --tissue-from: mended",))
    assert source_of_notes(grid, annotations, None) == source_of_notes(empty, None, None) == "slide"
    assert source_of_notes(grid, noted, tmp_path) == "annotations"
    assert source_of_notes(replace(empty, of_class="none"), annotations, tmp_path) == "annotations"
    assert source_of_notes(empty, annotations, tmp_path) == source_of_notes(from_file, None, tmp_path) == "tissue"
