"""Stage one in this process: what lands in the store is what timm gives, and what bad input does to it."""

import csv
import errno
import io
import json
import os
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import torch
import zarr
from numpy.typing import NDArray
from support.commands import G2L, call_g2l, child_environment, leftovers, run_g2l
from support.extraction import (
    PATCH_PX,
    TEACHER,
    array_files,
    embed_by_timm,
    extract,
    plan_cohort,
    reference_model,
    spoiling,
    timm_transform,
    tiny_model,
    write_cohort,
    write_teacher,
)
from support.failing import failing, os_error
from support.slides import damage_tiles, make_pixels, make_slide, truncate, write_slide

from pipeline.base.errors import ConfigError, EncoderError, G2LError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.stages import ExtractConfig
from pipeline.disk.asides import is_aside_of
from pipeline.encoders.table import EncoderSpec
from pipeline.store.changed_slides import read_changed
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches
from pipeline.store.store import Store
from stages import extract_teacher as stage


@pytest.fixture(scope="module")
def plan(pyramids: Path) -> Plan:
    return plan_cohort(pyramids / "manifest.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plan: Plan, weights: Path) -> Path:
    """The store of a run in which nothing went wrong; shared, not changed."""
    out = tmp_path_factory.mktemp("whole") / "store.zarr"
    assert extract(plan, out, weights).counts["OK"] == plan.num_rows == 24
    return out


@pytest.fixture
def moved(pyramids: Path, tmp_path: Path) -> Path:
    """A copy of the slides that a test may spoil; given as --slides-root."""
    return Path(shutil.copytree(pyramids, tmp_path / "moved"))


@pytest.fixture
def command(plan: Plan, weights: Path, tmp_path: Path) -> list[object]:
    """The command line of stage one, but for --out."""
    write_plan(plan, tmp_path / "plan.h5")
    sizes = ["--rows-per-shard", 8, "--batch-size", 4, "--device", "cpu"]
    return ["extract-teacher", tmp_path / "plan.h5", "--teacher", TEACHER, "--weights", weights, *sizes]


def embeddings(store: Store) -> NDArray[np.float32]:
    return np.concatenate([store.first.read_embeddings(shard) for shard in range(store.first.num_shards)]).astype(
        np.float32
    )


def statuses(store: Store) -> NDArray[np.uint8]:
    return np.concatenate([store.first.read_status(shard) for shard in range(store.first.num_shards)])


def failures_csv(store: Store) -> list[dict[str, str]]:
    with open(store.folder / "failures.csv", newline="") as f:
        return list(csv.DictReader(f))


def test_patches_of_one_colour_are_told(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = make_pixels("tissue", 512, 512, mpp=0.5)
    flat[:, 256:] = (224, 158, 192)
    write_slide(tmp_path / "a.svs", flat, mpp=0.5, downsamples=(1,))
    (tmp_path / "m.csv").write_text("slide_id,path,case_id\na,a.svs,c\n")
    plan = plan_cohort(tmp_path / "m.csv", patches_per_slide=100, val_fraction=0.0, max_artefact=1.0)
    extract(plan, tmp_path / "s.zarr", weights)
    note = f"note: {plan.num_rows // 2} patches are of one colour throughout, in 1 slide (a)"
    assert note in capsys.readouterr().err


# --- embeddings are the teacher's ---------------------------------------------------------------------------

REGISTERS = {"img_size": PATCH_PX, "reg_tokens": 4, "no_embed_class": True}
TABLE = {
    rule: EncoderSpec(
        rule, "timm:test_vit", "test_vit", REGISTERS, rule, patch_px=PATCH_PX, mean=(0.7, 0.58, 0.72), std=(0.2,) * 3
    )
    for rule in ("cls", "cls+mean")
}


def by_timm(model: Any, rule: str, config: dict[str, Any], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings (N, D) of patches (N, P, P, 3) by timm's evaluation transform of an encoder's record."""
    transform = timm_transform(PATCH_PX, config["mean"], config["std"], config.get("interpolation", "bicubic"))
    return embed_by_timm(model, transform, pixels, rule)


@pytest.mark.slow
@pytest.mark.parametrize(
    "teacher", ["cls", "cls+mean", "test_vit2", "test_resnet", "test_convnext", "test_efficientnet"]
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embeddings_equal_timms_own_on_the_stored_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan, teacher: str, dtype: str
) -> None:
    """A ViT with registers by both rules, one with average pooling and a register, and CNNs; read by zarr-python."""
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", TABLE)
    architecture = TABLE[teacher].architecture if teacher in TABLE else teacher
    arguments = REGISTERS if teacher in TABLE else {"img_size": PATCH_PX} if "vit" in teacher else {}
    weights = write_teacher(tmp_path / "w.safetensors", architecture, **arguments)
    extract(plan, tmp_path / "s.zarr", weights, teacher=teacher, dtype=dtype)
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    stored, pixels = np.asarray(group["embedding"][:]), np.asarray(group["pixels"][:])
    model = reference_model(architecture, weights, **arguments)
    config = TABLE[teacher].record() if teacher in TABLE else dict(model.pretrained_cfg)  # type: ignore[arg-type]
    expected = by_timm(model, teacher if teacher in TABLE else "pooled", config, pixels)
    assert stored.dtype == dtype
    assert stored.shape == expected.shape
    assert len(np.unique(expected, axis=0)) == len(np.unique(pixels, axis=0)) > 20  # two may be of the same bare glass
    slack = 2e-5 * np.abs(expected).max()
    rounding = 0 if dtype == "float32" else 2.0**-11 * np.abs(expected) + 2.0**-25
    assert (np.abs(stored.astype(np.float64) - expected) <= slack + rounding).all()


@pytest.mark.slow
def test_pixels_are_the_planned_patches(plan: Plan, whole: Path) -> None:
    patches, store = PlannedPatches(plan, None, tell=print), Store(whole)
    out = np.empty((PATCH_PX, PATCH_PX, 3), np.uint8)
    for row in range(plan.num_rows):
        assert patches.read(row, out).status is Status.OK
        np.testing.assert_array_equal(store.read_pixels(row), out)


def test_with_jpeg_the_teacher_sees_what_is_stored(tmp_path: Path, plan: Plan, weights: Path, whole: Path) -> None:
    extract(plan, tmp_path / "s.zarr", weights, pixels="jpeg", dtype="float32")
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    pixels = np.asarray(group["pixels"][:])
    model = reference_model(TEACHER, weights)
    expected = by_timm(model, "pooled", dict(model.pretrained_cfg), pixels)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.asarray(group["embedding"][:]), expected, rtol=1e-4, atol=1e-5)
    lossless = np.stack([Store(whole).read_pixels(row) for row in range(plan.num_rows)])
    assert 0 < np.abs(pixels.astype(int) - lossless).mean() < 3
    sizes = [sum(path.stat().st_size for path in folder.rglob("0")) for folder in (whole, tmp_path / "s.zarr")]
    assert sizes[1] < sizes[0]


def test_without_pixels_the_embeddings_are_the_same(tmp_path: Path, plan: Plan, weights: Path, whole: Path) -> None:
    extract(plan, tmp_path / "s.zarr", weights, pixels="none")
    kept = {name: data for name, data in array_files(whole).items() if not name.startswith("pixels")}
    assert array_files(tmp_path / "s.zarr") == kept


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path, plan: Plan, weights: Path, whole: Path, workers: int
) -> None:
    extract(plan, tmp_path / "s.zarr", weights, workers=workers)
    assert array_files(tmp_path / "s.zarr") == array_files(whole)


@pytest.mark.parametrize(("rows_per_shard", "batch_size"), [(7, 3), (5, 5), (1000, 1000), (11, 40)])
def test_odd_shards_and_batches_hold_the_same_embeddings(
    tmp_path: Path, plan: Plan, weights: Path, whole: Path, rows_per_shard: int, batch_size: int
) -> None:
    done = extract(plan, tmp_path / "s.zarr", weights, rows_per_shard=rows_per_shard, batch_size=batch_size)
    assert done.teacher.spec.settings["batch_size"] <= done.teacher.rows_per_shard <= plan.num_rows
    np.testing.assert_allclose(embeddings(done.store), embeddings(Store(whole)), rtol=2e-3, atol=2e-3)
    for row in range(0, plan.num_rows, 5):
        np.testing.assert_array_equal(done.store.read_pixels(row), Store(whole).read_pixels(row))


def test_every_rest_of_a_run_gives_the_same_bytes(tmp_path: Path, plan: Plan, weights: Path, whole: Path) -> None:
    """Whichever shards are left, batches are the same; and a batch size left open is the store's own."""
    for left in ([1], [0, 2], [0, 1, 2]):
        out = shutil.copytree(whole, tmp_path / "s.zarr", dirs_exist_ok=True)
        for shard in left:
            Store(out).first.ledger.path(shard).unlink()
            Store(out).first.shard_path("embedding", shard).unlink()
        done = extract(plan, out, weights, batch_size=None)
        assert done.num_new_rows == 8 * len(left)
        assert array_files(out) == array_files(whole)


# --- damaged, missing and replaced slides -------------------------------------------------------------------


def test_damaged_tiles_fail_their_rows_and_no_others(
    tmp_path: Path, plan: Plan, moved: Path, whole: Path, command: list[object]
) -> None:
    """Tiles are as large as patches and lie under them, so that each bad tile is one bad row. The file is no longer the
    planned one: the slide is refused, until the user asks for it.
    """
    first = plan.slides[0]
    bad_rows = [1, 4, 5]
    tiles = [tuple(first.coords_l0_px[row] // PATCH_PX) for row in bad_rows]
    assert all((first.coords_l0_px[row] % PATCH_PX == 0).all() for row in bad_rows)
    damage_tiles(moved / first.path, tiles, out=moved / "damaged.svs")
    os.replace(moved / "damaged.svs", moved / first.path)
    out = tmp_path / "store.zarr"
    code, said, _ = call_g2l(*command, "--slides-root", moved, "--out", out)
    assert (code, "failed rows: 12 no_slide" in said) == (3, True)
    assert all("its file has changed since it was planned" in line["reason"] for line in failures_csv(Store(out)))
    code, said, err = call_g2l(*command, "--slides-root", moved, "--out", out, "--retry-failures")
    assert (code, "failed rows: 3 unreadable" in said) == (3, True)
    assert err.count("s0.svs: its file has changed since it was planned") == 1
    store = Store(out)
    assert list(read_changed(out).values()) == ["s0.svs"]
    assert np.flatnonzero(statuses(store) == Status.UNREADABLE).tolist() == bad_rows
    good = store.first.ok_rows()
    assert len(good) == plan.num_rows - 3
    found, expected = embeddings(store), embeddings(Store(whole))
    assert np.isnan(found[bad_rows]).all()
    np.testing.assert_allclose(found[good], expected[good], rtol=2e-3, atol=1e-3)
    pixels = np.asarray(zarr.open_array(str(out / "pixels"), mode="r")[:])
    assert (pixels[bad_rows] == 0).all()  # the fill value, and no white patch
    for row in good:
        np.testing.assert_array_equal(pixels[row], Store(whole).read_pixels(row))
    listed = failures_csv(store)
    assert [int(line["row"]) for line in listed] == bad_rows
    for line in listed:
        assert (line["slide_id"], line["status"]) == (first.slide_id, "UNREADABLE")
        assert [int(line["x"]), int(line["y"])] == first.coords_l0_px[int(line["row"])].tolist()
        assert line["reason"]


def test_a_truncated_slide_fails_its_rows_and_no_others(
    tmp_path: Path, moved: Path, whole: Path, command: list[object]
) -> None:
    """Planned whole and cut to 60 % since, this one no longer opens."""
    path, out = moved / "s0.svs", tmp_path / "store.zarr"
    size = path.stat().st_size
    os.replace(truncate(path), path)
    assert path.stat().st_size == pytest.approx(0.6 * size, abs=1)
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(path)
    code, said, _ = call_g2l(*command, "--slides-root", moved, "--out", out)
    assert code == 3
    assert "failed rows: 12 no_slide" in said
    store = Store(out)
    assert store.first.ledger.pending() == []
    assert statuses(store).tolist() == [Status.NO_SLIDE] * 12 + [Status.OK] * 12
    listed = failures_csv(store)
    assert [(int(line["row"]), line["slide_id"], line["status"]) for line in listed] == [
        (row, "s0", "NO_SLIDE") for row in range(12)
    ]
    assert all("s0.svs" in line["reason"] for line in listed)
    found, expected = embeddings(store), embeddings(Store(whole))
    assert np.isnan(found[:12]).all()
    np.testing.assert_array_equal(found[16:], expected[16:])
    np.testing.assert_allclose(found[12:16], expected[12:16], rtol=2e-3, atol=1e-3)
    for row in range(12, 24):
        np.testing.assert_array_equal(store.read_pixels(row), Store(whole).read_pixels(row))
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_truncated_slide_that_still_opens_gives_its_first_part(tmp_path: Path, weights: Path) -> None:
    """With all its directories in front, and too large for OpenSlide to hash: to a plan that knows the file it is
    another one, to a plan of an earlier version it is the same.
    """
    manifest = write_cohort(tmp_path / "slides", 1, width=1664, height=1088, tile=64, compression="none", ifds="front")
    knowing = plan_cohort(manifest, patches_per_slide=40)
    plan = replace(knowing, slides=tuple(replace(slide, identity_facts=None) for slide in knowing.slides))
    undamaged = extract(plan, tmp_path / "whole.zarr", weights).store
    cut = truncate(tmp_path / "slides" / "s0.svs")
    os.replace(cut, tmp_path / "slides" / "s0.svs")
    refused = extract(knowing, tmp_path / "refused.zarr", weights).store
    assert (statuses(refused) == Status.NO_SLIDE).all()
    assert "not the slide that was planned" in refused.first.ledger.failures()[0]["reason"]
    store = extract(plan, tmp_path / "s.zarr", weights).store
    status = statuses(store)
    last_row_y = 1088 * 0.6
    expected = plan.coords()[:, 1] + PATCH_PX <= last_row_y - 64  # whole rows of tiles before the cut
    assert (status[expected] == Status.OK).all()
    assert (status[plan.coords()[:, 1] >= last_row_y] == Status.UNREADABLE).all()
    good = store.first.ok_rows()
    assert 0 < len(good) < plan.num_rows
    np.testing.assert_allclose(embeddings(store)[good], embeddings(undamaged)[good], rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(store.read_pixels(int(good[-1])), undamaged.read_pixels(int(good[-1])))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "replaced", "no slide"])
def test_a_slide_that_went_is_done_again_when_it_is_back(
    tmp_path: Path, plan: Plan, moved: Path, whole: Path, command: list[object], how: str
) -> None:
    path, out = moved / "s1.svs", tmp_path / "store.zarr"
    original = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "replaced":
        make_slide(path, width=512, height=448, mpp=0.5, downsamples=(1, 4), tile=64, seed=77)
    else:
        path.write_text("no slide")
    call = [*command, "--slides-root", moved, "--out", out]
    code, said, _ = call_g2l(*call)
    assert code == 3
    assert "12 no_slide" in said
    store = Store(out)
    assert statuses(store).tolist() == [Status.OK] * 12 + [Status.NO_SLIDE] * 12
    words = {"missing": "no such slide", "replaced": "not the slide that was planned", "no slide": "not a slide"}[how]
    assert all(words in line["reason"] for line in failures_csv(store))
    done_before = {shard: store.first.ledger.path(shard).stat().st_mtime_ns for shard in range(3)}

    path.write_bytes(original)
    code, said, _ = call_g2l(*call)
    assert code == 3
    assert "nothing was left to do" in said
    code, said, _ = call_g2l(*call, "--retry-failures")
    assert code == 0
    assert "16 rows in" in said  # the two shards that held failed rows
    assert array_files(out) == array_files(whole)
    assert not (out / "failures.csv").exists()
    redone = [shard for shard in range(3) if store.first.ledger.path(shard).stat().st_mtime_ns != done_before[shard]]
    assert redone == [1, 2]
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_retry_never_costs_good_rows(
    tmp_path: Path, plan: Plan, moved: Path, whole: Path, command: list[object]
) -> None:
    """Shard 1 has good rows of s0 and failed ones of s1; shard 2 has rows of s1 only."""
    away, out = tmp_path / "away", tmp_path / "store.zarr"
    away.mkdir()
    os.replace(moved / "s1.svs", away / "s1.svs")
    call = [*command, "--slides-root", moved, "--out", out]
    code, _, said = call_g2l(*call)
    assert code == 3
    assert f"note: 1 of 2 planned slides are missing, and their rows will fail: {moved / 's1.svs'}" in said
    before = array_files(out)

    def retried(*kept: int) -> None:
        code, words, said = call_g2l(*call, "--retry-failures")
        assert code == 3
        names = ", ".join(map(str, kept))
        assert f"leaves as they are: {len(kept)} ({names}). " in said
        assert "--slides-root" in said
        assert ("nothing was left to do" in words) == (len(kept) == 2)

    retried(1, 2)  # nothing is better than it was
    os.replace(moved / "s0.svs", away / "s0.svs")
    retried(1, 2)  # the folder is as good as away
    assert array_files(out) == before
    shutil.copy(away / "s1.svs", moved / "s1.svs")
    retried(1)  # the good rows of shard 1 would be lost
    assert Store(out).first.ok_rows().tolist() == [*range(12), *range(16, 24)]
    shutil.copy(away / "s0.svs", moved / "s0.svs")
    assert call_g2l(*call, "--retry-failures")[0] == 0
    assert array_files(out) == array_files(whole)


@pytest.mark.slow
def test_a_slide_cut_short_since_is_seen_by_its_last_good_row(tmp_path: Path, weights: Path) -> None:
    """It still opens and gives its first rows; a failed row of the other slide could be read again."""
    layout: dict[str, Any] = {"compression": "none", "ifds": "front"}
    manifest = write_cohort(tmp_path / "slides", 2, width=1664, height=1088, tile=64, **layout)
    plan = plan_cohort(manifest, patches_per_slide=40)
    first, second = (tmp_path / "slides" / name for name in ("s0.svs", "s1.svs"))
    os.replace(second, tmp_path / "s1.svs")
    store = extract(plan, tmp_path / "s.zarr", weights, rows_per_shard=80).store
    before = array_files(store.folder)
    os.replace(tmp_path / "s1.svs", second)
    os.replace(truncate(first), first)
    assert extract(plan, store.folder, weights, rows_per_shard=80, retry_failures=True).num_new_rows == 0
    assert array_files(store.folder) == before


def test_slides_with_full_paths_that_have_moved_are_not_asked_for_by_a_root(tmp_path: Path, plan: Plan) -> None:
    """`--slides-root` was advised, and then advised again."""
    full = replace(plan, slides=tuple(replace(each, path=f"/nowhere/{each.path}") for each in plan.slides))
    with pytest.raises(ConfigError, match="full paths, which --slides-root leaves as they are"):
        stage.check_slides(full, full.slides, tmp_path)


def test_without_any_slide_nothing_is_begun(
    tmp_path: Path, plan: Plan, moved: Path, whole: Path, command: list[object]
) -> None:
    out, nowhere = tmp_path / "store.zarr", tmp_path / "nowhere"
    call = [*command, "--slides-root", nowhere, "--out", out]
    code, _, said = call_g2l(*call)
    assert code == 1
    assert f"none of the 2 planned slides is there (the first: {nowhere / 's0.svs'}): say with --slides-root" in said
    assert not out.exists()
    shutil.copytree(whole, out)
    assert call_g2l(*call)[0] == 0  # nothing is left to be read
    Store(out).first.ledger.path(1).unlink()
    code, _, said = call_g2l(*call)
    assert code == 1
    assert "none of the 2 planned slides is there" in said
    assert Store(out).first.ledger.pending() == [1]
    assert call_g2l(*command, "--slides-root", moved, "--out", out)[0] == 0
    assert array_files(out) == array_files(whole)


def test_renamed_weights_continue_a_store(tmp_path: Path, plan: Plan, weights: Path, whole: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    Store(out).first.ledger.path(1).unlink()
    done = extract(plan, out, Path(shutil.copy(weights, tmp_path / "renamed.safetensors")))
    assert done.num_new_rows == 8
    assert done.teacher.spec.teacher["weights"] == weights.name
    assert array_files(out) == array_files(whole)


@pytest.mark.slow
def test_too_many_failures_stop_the_run_and_keep_what_is_done(
    tmp_path: Path, moved: Path, whole: Path, command: list[object]
) -> None:
    original = (moved / "s1.svs").read_bytes()
    (moved / "s1.svs").unlink()
    out = tmp_path / "store.zarr"
    call = [*command, "--slides-root", moved, "--out", out]
    code, _, said = call_g2l(*call, "--max-failures", 9)
    assert code == 1
    assert "12 rows failed, more than --max-failures 9. The last: s1 at" in said
    assert "no such slide" in said
    assert Store(out).first.ledger.read(0) is not None
    assert leftovers(tmp_path) == []
    assert call_g2l(*call)[0] == 3
    Store(out).first.ledger.path(0).unlink()
    code, _, said = call_g2l(*call, "--max-failures", 9)  # the failures are all of earlier runs
    assert code == 1
    assert "12 rows failed, more than --max-failures 9. Finished shards are kept" in said
    assert call_g2l(*call, "--max-failures", 12)[0] == 3
    (moved / "s1.svs").write_bytes(original)
    assert call_g2l(*call, "--max-failures", 0, "--retry-failures")[0] == 0
    assert array_files(out) == array_files(whole)


# --- a teacher that is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (float("inf"), "float32"), (1e6, "float16")])
def test_embeddings_that_are_not_finite_fail_their_rows(
    tmp_path: Path, plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str
) -> None:
    """Each third row of every batch is spoilt in one dimension; without the preflight, which would find that."""
    monkeypatch.setattr("pipeline.encoders.build.Encoder.forward", spoiling(slice(2, None, 4), value))
    store = extract(plan, tmp_path / "s.zarr", weights, dtype=dtype, preflight=False).store
    bad = np.arange(plan.num_rows) % 4 == 2
    assert ((statuses(store) == Status.NOT_FINITE) == bad).all()
    assert np.isnan(embeddings(store)[bad]).all()
    assert np.isfinite(embeddings(store)[~bad]).all()
    assert f"not finite as {dtype}" in failures_csv(store)[0]["reason"]
    with pytest.raises(StoreError, match=r"more than --max-failures 2\. .*not finite"):
        extract(plan, tmp_path / "t.zarr", weights, dtype=dtype, max_failures=2, preflight=False)


def test_a_device_without_memory_for_the_batch_is_told(
    tmp_path: Path, plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr("pipeline.encoders.build.Encoder.forward", failing(torch.OutOfMemoryError()))
        return real(*arguments, **options)

    real = stage.read_and_embed
    monkeypatch.setattr(stage, "read_and_embed", embed)
    with pytest.raises(ConfigError, match=r"has no room for batches of 4 patches\. Give a smaller --batch-size"):
        extract(plan, tmp_path / "s.zarr", weights)


# --- places that cannot be written --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, whole: Path) -> Iterator[Path]:
    """A file system with room for the first two of three shards and a half."""
    folder, page = tmp_path / "disk", 4096
    folder.mkdir()
    pages = {path: -(-path.stat().st_size // page) for path in whole.rglob("*") if path.is_file()}
    of_last = sum(pages[Store(whole).first.shard_path(name, 2)] for name in ("embedding", "pixels", "status"))
    size = f"size={(sum(pages.values()) - of_last // 2) * page}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_and_the_next_one_continues(
    small_disk: Path, tmp_path: Path, whole: Path, command: list[object]
) -> None:
    out = small_disk / "store.zarr"
    code, _, said = call_g2l(*command, "--out", out)
    assert code == 1
    assert f"cannot write to {out}: No space left on device" in said
    done = sum(entry is not None for _, entry in Store(out).first.ledger.entries())
    assert f"{done} of 3 shards are done and safe; make room and run the same command again" in said
    assert done == 2
    assert all(Store(out).first.check_files(shard) == [] for shard in range(done))
    assert leftovers(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    code, said, _ = call_g2l(*command, "--out", out)
    assert code == 0
    assert f"{24 - 8 * done} rows in" in said
    assert array_files(out) == array_files(whole)


def test_a_disk_that_is_full_from_the_start(small_disk: Path, tmp_path: Path, command: list[object]) -> None:
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    code, _, said = call_g2l(*command, "--out", small_disk / "store.zarr")
    assert code == 1
    assert "No space left on device" in said
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


class SmallFile(io.FileIO):
    """A file on a disk that has room for a few more bytes (less than the smallest shard file), and then is full."""

    room = 20

    def write(self, data: Any, /) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(bytes(data)[: self.room])
        self.room -= written
        return written


@pytest.mark.slow
@pytest.mark.parametrize("array", ["pixels", "embedding", "status"])
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_disk_that_fills_within_a_shard_file_loses_nothing(
    tmp_path: Path, whole: Path, command: list[object], monkeypatch: pytest.MonkeyPatch, array: str, shard: int
) -> None:
    """Unlike `small_disk`, needs no root and picks the file."""
    out = tmp_path / "store.zarr"
    target = out / Store(whole).first.shard_path(array, shard).relative_to(whole)
    opened: list[Path] = []

    def open_file(path: Path, mode: str) -> Any:
        if not is_aside_of(path.name, target.name) or path.parent != target.parent:
            return open(path, mode)
        opened.append(path)
        return io.BufferedWriter(SmallFile(path, mode))

    with monkeypatch.context() as full:
        full.setattr("pipeline.store.shards.open", open_file, raising=False)
        code, _, said = call_g2l(*command, "--out", out)
    assert len(opened) == 1
    assert code == 1
    assert said.splitlines()[-1].startswith(f"error: cannot write to {out}: No space left on device. {shard} of 3 ")
    assert leftovers(tmp_path) == []
    assert not target.exists()
    store = Store(out)
    assert store.first.ledger.pending() == list(range(shard, 3))
    assert all(store.first.check_files(done) == [] for done in range(shard))
    expected, kept = array_files(whole), array_files(out)
    assert kept.items() <= expected.items()  # what is there is right
    code, said, _ = call_g2l(*command, "--out", out)
    assert code == 0
    assert f"{24 - 8 * shard} rows in" in said
    assert array_files(out) == expected
    assert leftovers(tmp_path) == []


def test_a_failing_write_is_told_and_the_next_run_continues(
    tmp_path: Path, plan: Plan, weights: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.store.ledger.write_json", failing(os_error(errno.EIO)))
        with pytest.raises(StoreError, match=r"Input/output error\. 0 of 3 shards are done and safe"):
            extract(plan, tmp_path / "s.zarr", weights)
    assert leftovers(tmp_path) == []
    extract(plan, tmp_path / "s.zarr", weights)
    assert array_files(tmp_path / "s.zarr") == array_files(whole)


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path, command: list[object]) -> None:
    (tmp_path / "file").write_text("a file")
    for out, words in (
        (tmp_path / "file" / "store.zarr", "cannot write to .*file: (Not a directory|File exists)"),
        (Path("/proc/g2l/store.zarr"), "cannot write to /proc/g2l: "),
        (tmp_path / "file", "file exists and is not a store; nothing is overwritten"),
    ):
        code, _, said = call_g2l(*command, "--out", out)
        assert code == 1
        assert said.splitlines()[-1].startswith("error: ")
        with pytest.raises(G2LError, match=words):
            raise G2LError(said)
    assert (tmp_path / "file").read_text() == "a file"


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path, command: list[object]) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    code, _, said = call_g2l(*command, "--out", out)
    assert (code, "exists and is not a store; nothing is overwritten. Choose another --out" in said) == (1, True)
    zarr.create_group(str(out), attributes={"of": "someone else"}, zarr_format=3)
    code, _, said = call_g2l(*command, "--out", out)
    assert (code, "not a store of G2L" in said) == (1, True)
    assert sorted(path.name for path in out.iterdir()) == ["chapter1.tex", "zarr.json"]
    shutil.rmtree(out)
    out.mkdir()
    assert call_g2l(*command, "--out", out)[0] == 0  # an empty folder is as good as none


# --- another plan, teacher or setting -----------------------------------------------------------------------


def test_a_store_of_something_else_is_not_continued(
    tmp_path: Path, pyramids: Path, plan: Plan, whole: Path, weights: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    Store(out).first.ledger.path(1).unlink()
    before = array_files(out)
    other_weights = write_teacher(tmp_path / "other.safetensors", seed=1)
    other_plan = plan_cohort(pyramids / "manifest.csv", seed=5)
    vit = write_teacher(tmp_path / "vit.safetensors", "test_efficientnet")
    cases: list[tuple[Plan, Path, dict[str, Any], list[str]]] = [
        (other_plan, weights, {}, [f"plan_hash: '{plan.hash}' -> '{other_plan.hash}'"]),
        (plan, other_weights, {}, ["teacher.weights_sha256: ", "teacher.weights: 'teacher.safetensors' -> 'other"]),
        (plan, vit, {"teacher": "test_efficientnet"}, ["teacher.architecture: 'test_resnet' -> 'test_efficientnet'"]),
        (plan, weights, {"dtype": "float32"}, ["settings.dtype: 'float16' -> 'float32'"]),
        (plan, weights, {"pixels": "none"}, ["settings.pixels: 'jpegxl' -> 'none'"]),
        (plan, weights, {"batch_size": 2}, ["settings.batch_size: 4 -> 2"]),
        (plan, weights, {"rows_per_shard": 6}, ["settings.rows_per_shard: 8 -> 6"]),
        (plan, weights, {"precision": "bfloat16"}, ["settings.precision: 'float32' -> 'bfloat16'"]),
        (other_plan, other_weights, {"dtype": "float32"}, ["plan_hash: ", "teacher.weights_sha256", "settings.dtype"]),
    ]
    for with_plan, with_weights, options, words in cases:
        with pytest.raises(StoreError, match=r"s.zarr was made with other inputs and is not continued") as caught:
            extract(with_plan, out, with_weights, **options)
        for word in words:
            assert word in str(caught.value)
        differing = sum(line.startswith("  settings.") for line in str(caught.value).splitlines())
        assert differing == len(options.keys() - {"teacher"})
    assert array_files(out) == before
    assert leftovers(tmp_path) == []


def test_wrong_teachers_are_told_before_anything_is_written(tmp_path: Path, plan: Plan, command: list[object]) -> None:
    out = tmp_path / "s.zarr"
    resnet = write_teacher(tmp_path / "resnet.safetensors")
    for options, words in (
        ({"teacher": "test_vit"}, "do not fit the architecture"),
        ({"teacher": "no_such_model"}, "cannot get the encoder no_such_model"),
        ({"weights": tmp_path / "none.safetensors"}, "no such weights"),
        ({"teacher": "uni"}, "uni takes patches of 224 px, these have 64"),
    ):
        with pytest.raises(EncoderError, match=words):
            extract(plan, out, **({"weights": resnet} | options))  # type: ignore[arg-type]
    assert not out.exists()


def test_the_record_feeds_back(tmp_path: Path, command: list[object], whole: Path, weights: Path) -> None:
    out = tmp_path / "s.zarr"
    assert call_g2l(*command, "--out", out)[0] == 0
    record = tomllib.loads((out / "config.toml").read_text())["extract-teacher"]
    config = ExtractConfig.build({k: v for k, v in record.items() if k not in ("plan", "out")})
    assert (config.teacher, config.weights, config.batch_size) == (TEACHER, weights, 4)
    code, said, _ = call_g2l("extract-teacher", "--config", out / "config.toml")
    assert code == 0
    assert "nothing was left to do" in said
    assert array_files(out) == array_files(whole)


# --- parts --------------------------------------------------------------------------------------------------


def test_which_of_several_sets_of_weights_is_taken_is_told(
    tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = {f"{name}.{key}": value for name in ("ema", "net") for key, value in tiny_model().state_dict().items()}
    torch.save(sets, tmp_path / "w.pth")
    first = Path(f"{tmp_path}/w.pth::net")
    extract(plan, tmp_path / "s.zarr", first)
    assert "several sets of weights" not in capsys.readouterr().err
    extract(plan, tmp_path / "t.zarr", tmp_path / "w.pth")
    assert f"note: {tmp_path}/w.pth holds several sets of weights: " in capsys.readouterr().err


def test_a_nearly_full_disk_and_another_resolution_are_told(
    tmp_path: Path, pyramids: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"made": EncoderSpec("made", "timm:x", TEACHER, embedding="pooled", patch_px=PATCH_PX, mpp=0.25)}
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", table)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    plan = plan_cohort(pyramids / "manifest.csv", patches_per_slide=2)
    extract(plan, tmp_path / "s.zarr", weights, teacher="made")
    said = capsys.readouterr().err
    assert "note: made was trained at 0.25 um/px, the plan is at 0.5" in said
    assert "will be written; " in said
    assert "has 1.00 kB free" in said


def test_the_ledger_tells_where_and_how_long(whole: Path) -> None:
    entry = json.loads(Store(whole).first.ledger.path(2).read_text())
    assert entry["rows"] == [16, 24]
    assert entry["status"] == {"OK": 8}
    assert entry["seconds"] >= 0
    assert "CPU" in entry["device"]
    assert len(entry["files"]) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_embeddings_are_near_and_the_bytes_repeat(
    tmp_path: Path, plan: Plan, weights: Path, whole: Path
) -> None:
    runs = [extract(plan, tmp_path / f"{i}.zarr", weights, device="cuda", workers=i + 1).store for i in range(2)]
    assert array_files(runs[0].folder) == array_files(runs[1].folder)
    found, expected = embeddings(runs[0]), embeddings(Store(whole))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow  # two processes that load torch
def test_a_limit_of_open_files_ends_stage_one_and_fails_no_row(tmp_path: Path) -> None:
    """So the store that the same command then finishes is the one of a machine without such a limit."""
    manifest, weights = write_cohort(tmp_path / "slides", 12), write_teacher(tmp_path / "t.safetensors")
    plan = tmp_path / "plan.h5"
    write_plan(plan_cohort(manifest), plan)
    options = ("--teacher", TEACHER, "--weights", weights, "--device", "cpu", "--rows-per-shard", 16, "--workers", 4)
    command = ("extract-teacher", plan, "--out", tmp_path / "s.zarr", *options)
    words = " ".join(shlex.quote(str(word)) for word in (G2L, *command))
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -n 24; exec {words}"], capture_output=True, text=True, env=child_environment()
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "ulimit -n" in ended.stderr
    assert "Traceback" not in ended.stderr
    finished = run_g2l(*command)
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "s.zarr" / "failures.csv").exists()
