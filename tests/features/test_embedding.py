"""All tissue patches of a slide are embedded, whatever the batch; what cannot be is left out and said."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import openslide
import pytest
import torch
from support.czi import make_czi_slide
from support.dicom import RGB, write_slide
from support.extraction import PATCH_PX, TEACHER, write_teacher
from support.slides import make_pixels, make_slide
from support.vms import make_vms_slide

from pipeline.base.errors import SlideError
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.config.plan import PlanConfig
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.table import EncoderSpec
from pipeline.features.embedding import (
    Embedder,
    PreparedSlide,
    content_changes,
    embed_slide,
    file_change,
    prepare_slide,
    slide_content,
)
from pipeline.slides.reader import Slide


def test_a_slide_that_vanishes_meanwhile_fails_as_a_whole(tmp_path: Path) -> None:
    path = make_slide(tmp_path / "a.svs", width=512, height=448, mpp=0.5, downsamples=(1,), tile=64)
    grid = PlanConfig(patch_px=PATCH_PX, mpp=0.5).grid
    slide = Slide(path)
    prepared = prepare_slide(slide, ManifestRow("a", "a.svs", "a"), slide_content(slide, "a"), grid)
    path.unlink()
    encoder = build_encoder(TEACHER, write_teacher(tmp_path / "tiny.safetensors"), PATCH_PX)
    embedder = Embedder(encoder, None, torch.device("cpu"), "float32", "float32", 8, 1)
    with pytest.raises(SlideError, match="no such slide"):
        embed_slide(prepared, embedder, {}, lambda count: None, print)


def test_what_tells_a_finished_slide_from_another(tmp_path: Path) -> None:
    """Without a quickhash the file's bytes count; marks of earlier versions have no hash of them."""
    options = {"width": 1600, "height": 1280, "mpp": 0.5, "downsamples": (1,), "compression": "none"}
    first, second = (slide_content(Slide(make_slide(tmp_path / f"{i}.svs", seed=i, **options)), "a") for i in (1, 2))
    assert first["quickhash"] is None
    assert content_changes(first, first, "aperio") == []
    assert [line.split(":")[0] for line in content_changes(first, second, "aperio")] == ["sha256_parts"]
    earlier = {name: value for name, value in first.items() if name != "sha256_parts"}
    assert content_changes(earlier, first, "aperio") == []
    assert [line.split(":")[0] for line in content_changes(earlier, first | {"bytes": 1}, "aperio")] == ["bytes"]
    assert content_changes(first | {"quickhash": "x"}, second | {"quickhash": "x"}, "aperio") == []  # a tile was mended
    changed = file_change(first | {"quickhash": "x"}, second | {"quickhash": "x"})  # which is said
    assert changed == f"sha256_parts: {first['sha256_parts'][:12]} -> {second['sha256_parts'][:12]}"
    assert file_change(first, first) == file_change(earlier, first) == ""


def test_a_finished_dicom_slide_is_told_by_its_files(tmp_path: Path) -> None:
    """Its quickhash is its series' UID; marks of earlier versions know the named file alone."""
    _, half, full, _ = write_slide(tmp_path / "a", "s", RGB, "1.2.3.4")
    others = write_slide(tmp_path / "b", "s", 255 - RGB, "1.2.3.4")
    before = slide_content(Slide(full), "a")
    assert content_changes(before, slide_content(Slide(full), "a"), "dicom") == []
    shutil.copy(others[1], half)
    now = slide_content(Slide(full), "a")
    assert [line.split(":")[0] for line in content_changes(before, now, "dicom")] == ["sha256_series"]
    earlier = {name: value for name, value in before.items() if name != "sha256_series"}
    assert content_changes(earlier, now, "dicom") == []
    assert [line.split(":")[0] for line in content_changes(earlier | {"sha256_parts": "x"}, now, "dicom")] == [
        "sha256_parts"
    ]


def test_a_finished_zeiss_slide_is_told_by_its_file(tmp_path: Path) -> None:
    """Its quickhash is of its identifiers and metadata."""
    before = slide_content(Slide(make_czi_slide(tmp_path / "a.czi", RGB, mpp=0.5)), "a")
    now = slide_content(Slide(make_czi_slide(tmp_path / "a.czi", 255 - RGB, mpp=0.5)), "a")
    assert content_changes(before, before, "zeiss") == []
    assert [line.split(":")[0] for line in content_changes(before, now, "zeiss")] == ["sha256_parts"]


def test_a_changed_image_of_a_finished_hamamatsu_slide_is_told(tmp_path: Path) -> None:
    """As a tile of any slide that was repaired; marks of earlier versions know the first image alone."""
    images = make_vms_slide(tmp_path / "a.vms", make_pixels("tissue", 640, 384, mpp=0.5), mpp=0.5)
    before = slide_content(Slide(tmp_path / "a.vms"), "a")
    shutil.copy(images[0], images[2])
    now = slide_content(Slide(tmp_path / "a.vms"), "a")
    assert content_changes(before, now, "hamamatsu") == []
    assert file_change(before, now).startswith("sha256_series: ")
    earlier = {name: value for name, value in before.items() if name != "sha256_series"}
    assert content_changes(earlier, now, "hamamatsu") == []
    assert file_change(earlier, now) == ""


# --- one slide ---


GRID = PlanConfig(patch_px=64, mpp=0.5, min_tissue=0.0).grid


def prepared(folder: Path, **options: Any) -> PreparedSlide:
    """A slide of 4 x 3 patches."""
    values: dict[str, Any] = {"width": 256, "height": 192, "mpp": 0.5, "downsamples": (1,), "tile": 64} | options
    slide = Slide(make_slide(folder / "a.svs", **values))
    return prepare_slide(slide, ManifestRow("a", "a.svs", "case", center="north"), slide_content(slide, "a"), GRID)


class Colours(torch.nn.Module):
    """Embeds a patch as its mean colour, (B, 3); NaN above a mean of `limit`."""

    def __init__(self, limit: float = 1e9) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        means = patches.float().mean(dim=(1, 2))
        return torch.where(means.mean(1, keepdim=True) > self.limit, torch.nan, means)


def embedder(module: torch.nn.Module, batch_size: int = 5, dtype: str = "float32") -> Embedder:
    """A model that needs no timm."""
    spec = EncoderSpec("colours", "timm:none", "none", width=3, patch_px=64)
    encoder = BuiltEncoder(cast(Any, module), spec, "none", "0" * 64, 0)
    return Embedder(encoder, None, torch.device("cpu"), "float32", dtype, batch_size, 1)


def test_embeddings_are_of_the_pixels_at_their_places_whatever_the_batch(tmp_path: Path) -> None:
    slide, done = prepared(tmp_path), []
    found, failures = embed_slide(slide, embedder(Colours()), {"model": "x"}, done.append, print)
    assert (sum(done), len(found.features), failures) == (12, 12, [])
    assert (found.plan.case_id, found.plan.center, found.made_by, found.content["slide_id"]) == (
        "case",
        "north",
        {"model": "x"},
        "a",
    )
    assert (found.level_size_px, found.tissue_fraction.shape) == ((256, 192), (12,))
    reference = openslide.OpenSlide(slide.path)
    for (x, y), features in zip(found.coords_l0_px.tolist(), found.features, strict=True):
        pixels = np.asarray(reference.read_region((x, y), 0, (64, 64)).convert("RGB"), np.float64)
        np.testing.assert_allclose(features, pixels.mean(axis=(0, 1)), rtol=1e-5)
    assert found.features.std(0).min() > 0.1  # patches differ: agreement means something
    for batch_size in (1, 12, 100):
        again, _ = embed_slide(slide, embedder(Colours(), batch_size), {}, lambda count: None, print)
        np.testing.assert_array_equal(again.features, found.features)


def test_patches_whose_embedding_is_no_number_are_left_out_and_listed(tmp_path: Path) -> None:
    slide = prepared(tmp_path)
    whole, _ = embed_slide(slide, embedder(Colours()), {}, lambda count: None, print)
    limit = float(np.median(whole.features.mean(1)))
    found, failures = embed_slide(slide, embedder(Colours(limit)), {}, lambda count: None, print)
    bright = whole.features.mean(1) > limit
    assert 0 < bright.sum() < 12
    np.testing.assert_array_equal(found.features, whole.features[~bright])
    np.testing.assert_array_equal(found.coords_l0_px, whole.coords_l0_px[~bright])
    np.testing.assert_array_equal(found.tissue_fraction, whole.tissue_fraction[~bright])
    assert [(f.x, f.y) for f in failures] == [tuple(xy) for xy in whole.coords_l0_px[bright].tolist()]
    assert {(f.slide_id, f.status) for f in failures} == {("a", "NOT_FINITE")}
    assert found.mark({}).failed == len(failures)


def test_a_slide_without_any_embedding_fails_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: none of its 12 patches can be embedded; the first: the model gives"):
        embed_slide(prepared(tmp_path), embedder(Colours(-1.0)), {}, lambda count: None, print)


def test_what_the_stored_type_cannot_hold_is_no_number(tmp_path: Path) -> None:
    class Large(Colours):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return super().forward(patches) * 1e4

    slide = prepared(tmp_path)
    assert embed_slide(slide, embedder(Large()), {}, lambda count: None, print)[1] == []
    with pytest.raises(SlideError, match="more than float16 holds"):
        embed_slide(slide, embedder(Large(), dtype="float16"), {}, lambda count: None, print)


def test_a_slide_without_tissue_says_why(tmp_path: Path) -> None:
    path = make_slide(tmp_path / "blank.svs", pattern="blank", width=256, height=192, mpp=0.5, downsamples=(1,))
    slide = Slide(path)
    grid = PlanConfig(patch_px=64, mpp=0.5).grid
    with pytest.raises(SlideError, match=r"blank\.svs: no patch has 50% of its area on tissue"):
        prepare_slide(slide, ManifestRow("b", "blank.svs", "b"), slide_content(slide, "b"), grid)
