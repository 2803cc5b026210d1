"""Features, their places and the slide are held against each other; what does not fit fails the slide by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.features import FeatureSlide, write_trident
from support.slides import make_slide

from pipeline.base.errors import BenchmarkError, StoreError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.config.groups import Sampling
from pipeline.config.plan import PlanConfig
from pipeline.features.importing import (
    Expected,
    FeatureRows,
    ImportedSlide,
    describe_import,
    digest,
    look_at_slide,
    refuse_other_levels,
    side_of_patches,
)
from pipeline.features.read import PlacedFeatures
from pipeline.features.tool import PatchFacts
from pipeline.sampling import VAL
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.info import SlideInfo

PATCH_PX = 64
FILE = Path("s0.h5")


# --- how large the patches are ---

INFO = SlideInfo(
    "aperio",
    0.25,
    "slide",
    (2001, 1001),
    (0, 0, 2001, 1001),
    ((2001, 1001), (500, 250)),
    (1.0, 4.0),
    None,
    (255, 255, 255),
)


def side(facts: PatchFacts, mpp: float | None = None) -> float:
    placed = PlacedFeatures(np.ones((2, 3), np.float32), np.zeros((2, 2)), None, facts)
    return side_of_patches(placed, INFO, mpp, PATCH_PX, FILE)


def test_a_tool_may_go_by_the_size_of_a_level_that_is_filled_up() -> None:
    """As OpenSlide's own ratio does: of 2 and 26 columns of tiles in place of 25.5."""
    filled = replace(INFO, level_sizes_px=((2001, 1001), (1024, 512)), downsamples=(1.0, 2.0))
    facts = PatchFacts(side_l0_px=128, level=1, downsample=(2001 / 1024 + 1001 / 512) / 2)
    for each in (facts, replace(facts, downsample=2.0)):
        placed = PlacedFeatures(np.ones((2, 3), np.float32), np.zeros((2, 2)), None, each)
        assert side_of_patches(placed, filled, None, PATCH_PX, FILE) == 128
    assert facts.downsample is not None
    assert 2 / facts.downsample > 1.01


def test_the_side_is_what_the_tool_says_else_what_the_options_say() -> None:
    assert side(PatchFacts(side_l0_px=130)) == 130
    assert side(PatchFacts(side_um=32)) == 128
    assert side(PatchFacts(), mpp=0.5) == 128
    assert side(PatchFacts(side_l0_px=128), mpp=0.501) == pytest.approx(
        64 * 0.501 / 0.25
    )  # of which 128 is the rounding
    assert side(PatchFacts(side_l0_px=130), mpp=0.5) == 130  # of which it is not


@pytest.mark.parametrize(
    ("facts", "options", "words"),
    [
        (PatchFacts(), {}, r"does not say how large its patches are. Say it with --mpp"),
        (
            PatchFacts(side_l0_px=256),
            {"mpp": 0.5},
            r"its patches have 1 um/px at 64 px; --mpp says 0\.5. A wrong level",
        ),
        (
            PatchFacts(side_l0_px=128, size_l0_px=(500, 250)),
            {},
            r"made of a slide of \(500, 250\) pixels; this one has",
        ),
        (
            PatchFacts(side_l0_px=128, level=1, downsample=2.0),
            {},
            r"cut from level 1 at downsample 2; .*\[1\.0, 4\.0\]",
        ),
        (PatchFacts(side_l0_px=128, level=2, downsample=16.0), {}, "cut from level 2 at downsample 16"),
    ],
)
def test_what_contradicts_the_slide_or_the_options(facts: PatchFacts, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchmarkError, match=rf"^s0\.h5: .*{words}"):
        side(facts, **options)


def test_a_downsample_may_be_rounded() -> None:
    assert side(PatchFacts(side_l0_px=128, level=1, downsample=4.03, size_l0_px=(2001, 1001))) == 128


# --- slides of another magnification ---


def looked_at(name: str, mpp: float | None) -> ImportedSlide:
    """A slide whose patches have this um/px; `None` for one that failed before."""
    slide = ImportedSlide(AuditRow(name, "ok"), features=Path(f"{name}.h5"), digest=name)
    if mpp is None:
        return slide.failed("no features")
    geometry = PatchGeometry(PATCH_PX, mpp, 0.25, 0, 1.0)
    plan = SlidePlan(
        name,
        f"{name}.svs",
        name,
        None,
        None,
        None,
        (2001, 1001),
        geometry,
        np.zeros((1, 2), np.int64),
        np.zeros(1, np.uint8),
    )
    return replace(slide, slide=plan)


def test_slides_are_held_against_their_median_or_what_the_user_says() -> None:
    slides = [looked_at("a", 0.5), looked_at("b", 1.0), looked_at("c", 0.46), looked_at("d", None)]
    checked, mpp = refuse_other_levels(slides, None)
    assert (mpp, [s.audit.status for s in checked]) == (0.5, ["ok", "failed", "ok", "failed"])
    assert checked[1].audit.reason == "b.h5: its patches have 1 um/px, those of the other slides 0.5. A wrong level?"
    assert (checked[1].slide, checked[1].digest) == (None, "")
    assert checked[3].audit.reason == "no features"
    checked, mpp = refuse_other_levels(slides, 1.0)
    assert (mpp, [s.slide is not None for s in checked]) == (1.0, [False, True, False, False])
    assert refuse_other_levels([looked_at("d", None)], None)[1] == 1.0


def test_a_digest_is_of_numbers_not_of_types() -> None:
    features, coords = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[0, 64], [64, 64]])
    whole = digest(PlacedFeatures(features, coords, "a", PatchFacts()))
    assert digest(PlacedFeatures(features, coords.astype(np.int32), "b", PatchFacts(layout="clam"))) == whole
    assert digest(PlacedFeatures(features, coords * 1.0, None, PatchFacts())) == whole
    for other in (
        PlacedFeatures(features + 1, coords, "a", PatchFacts()),
        PlacedFeatures(features, coords + 1, "a", PatchFacts()),
        PlacedFeatures(features[::-1], coords, "a", PatchFacts()),
    ):
        assert digest(other) != whole


# --- a slide and its file ---

CORNERS = np.array([[64, 64], [0, 0], [128, 0], [0, 64]])


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    return make_slide(tmp_path / "s0.svs", width=256, height=192, mpp=0.5, downsamples=(1,), tile=64)


def write(folder: Path, coords: Any = CORNERS, width: int = 3, size: tuple[int, int] = (256, 192)) -> Path:
    """A file as TRIDENT writes it; row i has the value i."""
    features = np.repeat(np.arange(len(coords), dtype=np.float32)[:, None], width, axis=1)
    job = write_trident(folder, [FeatureSlide("s0", features, np.asarray(coords), 0.5, PATCH_PX, 0.5, size)])
    return job / "features_tiny" / "s0.h5"


def look(slide_file: Path, features: Path, width: int = 0, most: int | None = None) -> ImportedSlide:
    row = ManifestRow("s0", "s0.svs", "case", split="val")
    sampling = Sampling(most, seed=0, val_fraction=0.1)
    expected = Expected("tiny", PATCH_PX, width, mpp=None, allow_upsampling=False, coords=None, sampling=sampling)
    return look_at_slide(row, slide_file, features, expected)


def test_a_slide_that_fits_becomes_a_part_of_the_plan(tmp_path: Path, slide_file: Path) -> None:
    found = look(slide_file, write(tmp_path), width=3)
    assert found.audit.status == "ok", found.audit.reason
    assert found.slide is not None
    assert found.slide.coords_l0_px.tolist() == [[0, 0], [128, 0], [0, 64], [64, 64]]  # top to bottom, left to right
    assert (found.slide.geometry.patch_l0_px, set(found.slide.split)) == (64, {VAL})
    assert (found.layout, found.encoder, len(found.digest)) == ("trident", "tiny", 64)
    assert found.centre is not None
    assert found.centre.tolist() == [1.5] * 3
    assert (found.audit.patches_available, found.audit.patches_taken, found.audit.split) == (4, 4, "val")
    few = look(slide_file, write(tmp_path), most=2).slide
    assert few is not None
    assert len(few.coords_l0_px) == 2


def test_patches_over_the_edge_are_left_out_and_counted(tmp_path: Path, slide_file: Path) -> None:
    """A pixel more is the rounding of corners and sides."""
    found = look(slide_file, write(tmp_path, [[0, 0], [193, 0], [194, 0], [0, 129], [0, 130]]))
    assert found.slide is not None
    assert found.slide.coords_l0_px.tolist() == [[0, 0], [193, 0], [0, 129]]
    assert (found.audit.reason, found.audit.patches_available) == ("patches over the edge, left out: 2", 5)


@pytest.mark.parametrize(
    ("coords", "more", "words"),
    [
        (
            [[0, 0], [256, 0]],
            {},
            r"1 of 2 coordinates lie outside the slide of 256 x 192 pixels \(the first: \(256, 0\)",
        ),
        ([[0, -1]], {}, "1 of 1 coordinates lie outside the slide"),
        ([[200, 0]], {}, "no patch of 64 level-0 pixels lies wholly on the slide"),
        ([[0, 0], [0, 0], [64, 0]], {}, "1 of 3 coordinates occur twice"),
        ([[0, 0]], {"width": 4}, "3 dimensions; tiny has 4"),
    ],
)
def test_what_does_not_fit_fails_by_name_and_is_not_raised(
    tmp_path: Path, slide_file: Path, coords: list[list[int]], more: dict[str, int], words: str
) -> None:
    features = write(tmp_path, coords)
    found = look(slide_file, features, **more)
    assert (found.audit.status, found.slide, found.digest, found.features) == ("failed", None, "", features)
    with pytest.raises(BenchmarkError, match=rf"s0\.h5: {words}"):
        raise BenchmarkError(found.audit.reason)


def test_a_slide_or_a_file_that_cannot_be_read_fails_by_name(tmp_path: Path, slide_file: Path) -> None:
    features = write(tmp_path)
    assert "gone.svs" in look(tmp_path / "gone.svs", features).audit.reason
    features.write_bytes(b"cut short")
    found = look(slide_file, features)
    assert (found.audit.status, found.audit.slide_id, found.audit.case_id) == ("failed", "s0", "case")
    assert "s0.h5: " in found.audit.reason


def test_rows_are_the_plan_s_and_a_file_that_changes_is_told(tmp_path: Path, slide_file: Path) -> None:
    features = write(tmp_path)
    found = look(slide_file, features)
    assert found.slide is not None
    plan = Plan((found.slide,), tmp_path, PlanConfig(patch_px=PATCH_PX, mpp=0.5), (found.audit,))
    rows = FeatureRows(plan, {"s0": found}, None)
    assert rows.read([3, 0, 1])[:, 0].tolist() == [0, 1, 2]  # by the corners in reading order
    write(tmp_path, CORNERS[::-1])
    assert rows.read([0])[0, 0] == 1  # held from before
    with pytest.raises(StoreError, match=r"s0\.h5 has changed while it was imported. Run the same command again"):
        FeatureRows(plan, {"s0": found}, None).read([0])
    advice = "Put the file back as it was, or import into another --out"  # the same command is refused: other inputs
    with pytest.raises(StoreError, match=rf"s0\.h5 has changed while it was imported. {advice}"):
        FeatureRows(plan, {"s0": found}, None, fills_store=True).read([0])


def test_a_store_records_the_files_that_were_used(tmp_path: Path, slide_file: Path) -> None:
    found = look(slide_file, write(tmp_path))
    said = describe_import([found, looked_at("bad", None)], {"val_fraction": 0.5})
    assert (said["layouts"], said["encoders"]) == (["trident"], ["tiny"])
    assert said["features_sha256"] == {"s0": found.digest}
    assert said["options"] == {"val_fraction": 0.5}
