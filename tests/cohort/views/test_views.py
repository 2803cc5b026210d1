"""Views of a patch: what they are, that the teacher's embeddings are theirs, and that the student sees the same."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support.commands import call_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, reference_model, write_cohort, write_teacher
from support.stores import make_patches, run_files, student_folder, train_config
from support.training import stop_after
from torchvision.transforms import functional as tv

from pipeline.base.draws import RunDraws
from pipeline.base.errors import CheckpointError, ConfigError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.cohort.views import views as module
from pipeline.cohort.views.colours import FACTOR_ONE, HUE_TURN
from pipeline.cohort.views.views import (
    GREY_OF_DENSITY,
    STAINS,
    ViewDraws,
    Views,
    centre,
    change_stain,
    dihedral,
    draw_view,
    stain_changes,
)
from pipeline.sampling import TRAIN, VAL
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.store.writer import StoreWriter
from pipeline.training import run_folder
from pipeline.training.rows.order import row_views
from pipeline.training.rows.reading import StoredRows
from pipeline.training.rows.statistics import teacher_statistics
from stages.inspect import inspect_path
from stages.train_student import train_student
from stages.verify import verify_store

K = 4
STAIN_CHANGE = 0.05
"""Of mild views: HED-light of Tellez et al., 2019."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, a teacher's weights, `plain.zarr` without views and `views.zarr` with four."""
    folder = tmp_path_factory.mktemp("views")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "teacher.safetensors")
    extract(plan, folder / "plain.zarr", folder / "teacher.safetensors")
    extract(plan, folder / "views.zarr", folder / "teacher.safetensors", views=K)
    return folder


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return Store(root / "views.zarr").plan


@pytest.fixture(scope="module")
def vit(root: Path) -> str:
    return student_folder(root / "vit", "test_vit", 64, img_size=64, depth=2, embed_dim=32, num_heads=2)


# --- what a view is ----------------------------------------------------------------------------------------------


def test_views_do_not_change_from_one_version_to_the_next() -> None:
    """A store of today is trained on by the program of tomorrow: the views must be the same to the bit."""
    patch = make_patches(1)[0]
    found = [
        hashlib.sha256(np.ascontiguousarray(Views(K, 5).apply(patch, 7, view))).hexdigest()[:16] for view in range(K)
    ]
    assert found[0] == hashlib.sha256(patch).hexdigest()[:16]
    assert found[1:] == ["bb0a8234e6b546d3", "fe45f893c1962d50", "d22258618735ccd2"]


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ("none", "261acb38325ae13b"),
        ("flips", "78a4bba1743aadcc"),
        ("mild", "215dbb00575387b0"),
        ("paper", "80e07b779f0cdffd"),
        ("strong", "876cb9704a55d07a"),
    ],
)
def test_views_of_each_strength_do_not_change_either(strength: str, expected: str) -> None:
    digest = hashlib.sha256()
    for view in range(1, 40):
        digest.update(np.ascontiguousarray(Views(40, 5, strength, 48).apply(make_patches(1, 56)[0], 7, view)))
    assert digest.hexdigest()[:16] == expected


def test_a_crop_is_a_part_of_the_tile_and_view_0_its_middle() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    views, places = Views(64, 1, "none", 48), set()
    for view in range(1, 64):
        seen = views.apply(tile, 3, view)
        at = [(x, y) for x in range(9) for y in range(9) if np.array_equal(seen, tile[y : y + 48, x : x + 48])]
        assert len(at) == 1
        places.add(at[0])
    assert len(places) > 30
    assert np.array_equal(views.apply(tile, 3, 0), tile[4:52, 4:52])
    assert np.array_equal(centre(tile[:55, :55], 48), tile[3:51, 3:51])
    assert np.array_equal(Views(4, 1, "mild").apply(tile, 3, 2), Views(4, 1).apply(tile, 3, 2))


@given(key=st.integers(0, 2**64 - 1), seed=st.integers(0, 50))
def test_the_change_of_stain_is_that_of_floats(key: int, seed: int) -> None:
    """Beer and Lambert: amounts of three stains, each changed by a factor; and no more than a level from exact."""
    patch = make_patches(1, 16, seed)[0]
    factors = [1 + STAIN_CHANGE * (((key >> shift) & 0xFFFF) / 32767.5 - 1) for shift in (16, 32, 48)]
    assert all(1 - STAIN_CHANGE <= factor <= 1 + STAIN_CHANGE for factor in factors)
    amounts = -np.log((patch + 1.0) / 256) @ np.linalg.inv(STAINS)
    expected = (256 * np.exp(-(amounts * factors) @ STAINS) - 1).clip(0, 255)
    assert np.abs(change_stain(patch, key, STAIN_CHANGE) - expected).max() <= 1
    assert (change_stain(np.full((2, 2, 3), 255, np.uint8), key, STAIN_CHANGE) == 255).all()


def test_no_change_is_none_and_levels_are_their_own_inverse() -> None:
    patch = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    middle = 0x7FFF
    key = middle << 16 | middle << 32 | middle << 48
    assert np.abs(change_stain(patch, key, STAIN_CHANGE).astype(int) - patch).max() == 0
    assert np.array_equal(GREY_OF_DENSITY[module.DENSITY], np.arange(256))


@pytest.mark.parametrize("strength", ["flips", "mild", "paper", "strong"])
def test_a_view_shows_what_was_drawn(strength: str) -> None:
    """Every part of it, in the order of the table, by torch, torchvision and libjpeg on floats: half a level from them
    on average where nothing is compressed; libjpeg rounds between its steps.
    """
    tile = make_patches(1, 64)[0]
    views = Views(60, 3, strength, 48)
    for view in range(1, views.count):
        drawn = draw_view(ViewDraws(3, 7, view), strength, 64, 48)
        (x, y), side = drawn.corner_px, drawn.side_px
        expected = tile[y : y + side, x : x + side].astype(np.float64)
        expected = channels_last(resized(channels_first(expected), 48))
        expected = dihedral(expected, drawn.turn)  # type: ignore[arg-type]
        if drawn.stain:
            amounts = -np.log((expected + 1) / 256) @ np.linalg.inv(STAINS) * (1 + stain_changes(*drawn.stain))
            expected = (256 * np.exp(-amounts @ STAINS) - 1).clip(0, 255)
        image = channels_first(expected) / 255
        for name, amount in drawn.colours:
            one = HUE_TURN if name == "hue" else FACTOR_ONE
            image = getattr(tv, f"adjust_{name}")(image, amount / one)
        if drawn.sigma_milli_px:
            image = tv.gaussian_blur(image, [9, 9], [drawn.sigma_milli_px / 1000] * 2)
        expected, found = channels_last(image * 255), views.apply(tile, 7, view).astype(np.float64)
        if drawn.quality is not None:
            levels = np.ascontiguousarray(np.rint(expected).astype(np.uint8))
            encoded = imagecodecs.jpeg8_encode(levels, level=drawn.quality, subsampling="444")
            expected = imagecodecs.jpeg8_decode(encoded)
        differences = np.abs(found - expected)
        assert differences.mean() < (0.6 if drawn.quality is None else 1.5), drawn
        assert np.quantile(differences, 0.95) < (2 if drawn.quality is None else 5), drawn


def channels_first(patch: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1)))


def channels_last(image: torch.Tensor) -> np.ndarray:
    return image.numpy().transpose(1, 2, 0)


def resized(image: torch.Tensor, side: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(image[None], side, mode="bilinear", align_corners=False)[0]


def test_a_view_depends_on_seed_row_and_number_alone() -> None:
    patch = make_patches(1)[0]
    views = Views(K, 1)
    assert np.array_equal(views.apply(patch, 3, 2), Views(K + 4, 1).apply(patch.copy(), 3, 2))
    others = [views.apply(patch, 3, 1), views.apply(patch, 4, 2), Views(K, 2).apply(patch, 3, 2)]
    assert not any(np.array_equal(views.apply(patch, 3, 2), other) for other in others)
    turned = {dihedral(patch, which).tobytes() for which in range(8)}
    assert len(turned) == 8
    shown = row_views(np.arange(4000), views, RunDraws(0), 3)
    assert np.bincount(shown, minlength=K).min() > 900
    assert not np.array_equal(shown, row_views(np.arange(4000), views, RunDraws(0), 4))
    assert (row_views(np.arange(50), Views(), RunDraws(0), 3) == 0).all()


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_view_0_is_the_store_without_views(root: Path, plan: Plan, tmp_path: Path) -> None:
    plain, viewed = array_files(root / "plain.zarr"), array_files(root / "views.zarr")
    assert viewed == plain
    extract(plan, tmp_path / "one.zarr", root / "teacher.safetensors", views=1)
    for name in ("zarr.json", "shards/0.json"):
        texts = [
            (path / name).read_text().split('"seconds"')[0] for path in (root / "plain.zarr", tmp_path / "one.zarr")
        ]
        assert texts[0] == texts[1]
    assert not (tmp_path / "one.zarr" / "views").exists()


def test_embeddings_of_views_are_timms_of_the_views(root: Path) -> None:
    group: Any = zarr.open_group(str(root / "views.zarr"), mode="r")
    pixels, found = group["pixels"][:], group["views"][:]
    model = reference_model(TEACHER, root / "teacher.safetensors")
    mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))  # type: ignore[index]
    assert found.shape == (24, K - 1, 96)
    for view in range(1, K):
        shown = np.stack([Views(K, 0).apply(pixels[row], row, view) for row in range(24)])
        with torch.inference_mode():
            expected = model(((torch.from_numpy(shown) / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(found[:, view - 1], expected, rtol=2e-3, atol=2e-3)
    store = Store(root / "views.zarr")
    everything = np.concatenate([store.first.read_views(shard) for shard in range(store.first.num_shards)])
    assert np.array_equal(everything[:, 1:], found)
    assert np.array_equal(store.first.read_embedding(13, 2), found[13, 1].astype(np.float32))
    assert np.array_equal(store.first.read_embedding(13), group["embedding"][13].astype(np.float32))


def test_a_view_that_is_not_finite_fails_its_row(root: Path, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(root / "views.zarr", tmp_path / "s.zarr")))
    store.first.ledger.path(0).unlink()
    embeddings = np.zeros((8, K, 96), np.float32)
    embeddings[5, 3, 7] = np.inf
    image = b"not looked at"
    with StoreWriter(store.first, lambda row: {"row": row, "slide_id": "?", "x": 0, "y": 0}, "test") as writer:
        writer.put(range(8), embeddings, [PatchRead(Status.OK, image)] * 8)
    assert store.first.read_status(0).tolist() == [1] * 5 + [Status.NOT_FINITE] + [1] * 2
    assert np.isnan(store.first.read_views(0)[5]).all()


def test_verify_embeds_views_again_and_finds_damage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Path(shutil.copytree(root / "views.zarr", tmp_path / "s.zarr")))
    weights = root / "teacher.safetensors"
    text, code = verify_store(store.folder, weights, 16, "cpu")
    assert (code, "16 rows embedded again, one of 4 views of each" in text) == (0, True)
    with monkeypatch.context() as patched:
        patched.setattr(Views, "apply", lambda *_: np.zeros((64, 64, 3), np.uint8))
        text, code = verify_store(store.folder, weights, 16, "cpu")
        assert (code, "NOT the same embeddings" in text) == (1, True)
    path = store.first.shard_path("views", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    assert verify_store(store.folder, None, 0, "cpu")[1] == 1
    with pytest.raises(StoreError, match="damaged"):
        store.first.read_views(1)
    path.unlink()
    assert "views/c/1/0/0: missing" in verify_store(store.folder, None, 0, "cpu")[0]


def test_other_views_are_another_store(root: Path, plan: Plan, tmp_path: Path) -> None:
    weights = root / "teacher.safetensors"
    for options, words in (
        ({"views": 3}, "settings.views: 4 -> 3"),
        ({"views": K, "views_seed": 1}, "settings.views_seed: 0 -> 1"),
        ({}, "settings.views: 4 -> 1"),
    ):
        with pytest.raises(StoreError, match=words):
            extract(plan, root / "views.zarr", weights, **options)
    with pytest.raises(ConfigError, match="say with --views how many"):
        extract(plan, tmp_path / "s.zarr", weights, views_seed=1)
    assert not (tmp_path / "s.zarr").exists()
    code, _, said = call_g2l("extract-teacher", root / "plan.h5", "--teacher", TEACHER, "--out", tmp_path, "--views", 0)
    assert (code, "views" in said) == (1, True)
    assert "4 of each patch, seed 0" in inspect_path(root / "views.zarr")


# --- training ----------------------------------------------------------------------------------------------------


def test_the_student_sees_the_view_that_it_is_compared_with(root: Path) -> None:
    store = Store(root / "views.zarr")
    rows, found = StoredRows([store.first], views=store.first.views, tell=print), set()
    for epoch in range(6):
        reader = rows.reader(RunDraws(3), epoch, "none")
        for row in range(store.num_rows):
            out = np.empty((64, 64, 3), np.uint8)
            embedding = reader.read(row, out)
            view = int(row_views(np.array([row]), store.first.views, RunDraws(3), epoch)[0])
            assert np.array_equal(out, Views(K, 0).apply(store.read_pixels(row), row, view))
            assert np.array_equal(embedding, store.first.read_embedding(row, view))
            found.add(view)
    assert found == set(range(K))


def test_statistics_are_of_all_views_of_the_rows(root: Path) -> None:
    group: Any = zarr.open_group(str(root / "views.zarr"), mode="r")
    values = np.concatenate([group["embedding"][:][:, None], group["views"][:]], axis=1).astype(np.float64)
    train = values[group["plan/split"][:] == TRAIN].reshape(-1, 96)
    mean, var = teacher_statistics(Store(root / "views.zarr").first, TRAIN, None, K)
    np.testing.assert_allclose(mean, train.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(var, train.var(0, ddof=1), rtol=1e-10)


@pytest.mark.slow
def test_a_run_says_where_the_student_sees_more_than_the_teacher(
    root: Path, tmp_path: Path, vit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said, cards, options = {}, {}, {}
    for name, store, chosen in (
        ("views", "views.zarr", {}),
        ("views and flips", "views.zarr", {"augment": "flips"}),
        ("plain", "plain.zarr", {}),
        ("plain, none", "plain.zarr", {"augment": "none"}),
    ):
        run = train_student(
            Store(root / store), tmp_path / name, train_config(vit, epochs=1, batch_size=4, **chosen)
        ).run
        said[name], cards[name] = capsys.readouterr().err, (run.student / "README.md").read_text()
        options[name] = run.config_path.read_text()
    assert "4 views of each patch, each compared" in cards["views"]
    assert 'augment = "none"' in options["views"]
    for name, beyond in (("views", False), ("views and flips", True), ("plain", True), ("plain, none", False)):
        assert ("note: the student sees flips" in said[name]) == beyond
        assert ("The student sees flips" in cards[name]) == beyond
    assert "4 views of each patch without them" in said["views and flips"]
    again = train_student(Store(root / "views.zarr"), tmp_path / "views", train_config(vit, epochs=1, batch_size=4))
    assert again.num_new_steps == 0


@pytest.mark.slow
def test_a_run_of_version_2_continues_with_its_views(
    root: Path, tmp_path: Path, vit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bytes of one that was never stopped; a run that is begun now shows other views."""
    store, config = Store(root / "views.zarr"), train_config(vit, epochs=3, batch_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "RUN_VERSION", 2)
        whole = train_student(store, tmp_path / "whole", config).run
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", config)
    continued = train_student(store, tmp_path / "run", config).run
    assert run_files(continued.folder) == run_files(whole.folder)
    assert continued.read_identity()["version"] == 2
    assert "use_plain_view" not in continued.read_identity()["options"]
    new = train_student(store, tmp_path / "new", config).run
    assert run_files(new.folder)["metrics.jsonl"] != run_files(whole.folder)["metrics.jsonl"]


@pytest.mark.slow
def test_without_the_plain_view_it_is_scored_and_not_shown(root: Path, tmp_path: Path, vit: str) -> None:
    store, shown = Store(root / "views.zarr"), set()
    rows = StoredRows([store.first], views=store.first.views, plain_view=False, tell=print)
    for epoch in range(6):
        reader, out = rows.reader(RunDraws(3), epoch, "none"), np.empty((64, 64, 3), np.uint8)
        embedding = reader.read(5, out)
        view = next(v for v in range(K) if np.array_equal(embedding, store.first.read_embedding(5, v)))
        assert np.array_equal(out, store.first.views.apply(store.read_pixels(5), 5, view))
        shown.add(view)
    assert shown == set(range(1, K))
    config = train_config(vit, epochs=1, batch_size=4, use_plain_view=False)
    run = train_student(store, tmp_path / "run", config).run
    assert run.read_identity()["options"]["use_plain_view"] is False
    assert "use_plain_view = false" in run.config_path.read_text()
    scored = {line["rows"] for line in run.metrics() if line["kind"] == "val"}
    assert scored == {store.plan.count(VAL)}
    with pytest.raises(CheckpointError, match="use_plain_view: False -> True"):
        train_student(store, tmp_path / "run", train_config(vit, epochs=1, batch_size=4))
    with pytest.raises(ConfigError, match=r"--no-use-plain-view: .* no view but the patch"):
        train_student(Store(root / "plain.zarr"), tmp_path / "other", config)


@pytest.mark.slow
def test_teachers_of_other_views_are_not_mixed(root: Path, plan: Plan, tmp_path: Path) -> None:
    out = Path(shutil.copytree(root / "views.zarr", tmp_path / "s.zarr"))
    weights = write_teacher(tmp_path / "w.safetensors", "test_efficientnet")
    extract(plan, out, weights, teacher="test_efficientnet", views=2, views_seed=9)
    names = [TEACHER, "test_efficientnet"]
    with pytest.raises(ConfigError, match=f"other views .--views-seed 0 of {TEACHER}, 9 of test_efficientnet"):
        choose_teachers(Store(out), names, None)
    shutil.rmtree(out / "teachers")
    extract(plan, out, weights, teacher="test_efficientnet", views=2)
    assert choose_teachers(Store(out), names, None).views == Views(2, 0)
    shutil.rmtree(out / "teachers")
    extract(plan, out, weights, teacher="test_efficientnet")
    assert choose_teachers(Store(out), names, None).views.count == 1
