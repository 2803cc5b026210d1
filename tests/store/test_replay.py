"""Stores with tiles and strengths: what teacher and student see, and stores whose views cannot be replayed."""

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from support.extraction import TEACHER, array_files, extract, plan_cohort, reference_model, write_cohort, write_teacher
from support.stores import make_store

from pipeline.base.draws import RunDraws
from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.views import views as views_module
from pipeline.cohort.views.strengths import VIEW_STRENGTHS
from pipeline.cohort.views.views import Views, centre, views_probe
from pipeline.store import replay
from pipeline.store.replay import EARLIER_PROBE, require_replay, strength_settings
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.training.rows.order import row_views
from pipeline.training.rows.reading import StoredRows
from stages.inspect import inspect_path
from stages.verify import verify_store

PATCH, TILE, K = 64, 80, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, a teacher, and stores of tiles: `paper.zarr`, and `none.zarr` without pixels whose views only crop."""
    folder = tmp_path_factory.mktemp("tiles")
    plan = plan_cohort(write_cohort(folder / "slides"), tile_px=TILE, patches_per_slide=5)
    write_teacher(folder / "teacher.safetensors")
    for strength, options in (("paper", {}), ("none", {"pixels": "none"})):
        weights, out = folder / "teacher.safetensors", folder / f"{strength}.zarr"
        extract(plan, out, weights, views=K, views_strength=strength, views_seed=4, **options)
    return folder


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return Store(root / "paper.zarr").plan


def tiles_of(root: Path) -> np.ndarray:
    store = Store(root / "paper.zarr")
    return np.stack([store.read_pixels(row) for row in range(store.num_rows)])


def test_the_store_keeps_tiles_and_the_teacher_sees_crops(root: Path) -> None:
    group: Any = zarr.open_group(str(root / "paper.zarr"), mode="r")
    tiles, store = group["pixels"][:], Store(root / "paper.zarr")
    assert tiles.shape == (10, TILE, TILE, 3)
    assert (store.patch_px, store.tile_px, store.first.attributes["version"]) == (PATCH, TILE, 2)
    assert np.array_equal(store.read_patch(3), tiles[3, 8:72, 8:72])
    model = reference_model(TEACHER, root / "teacher.safetensors")
    mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))  # type: ignore[index]
    views = Views(K, 4, "paper", PATCH)
    assert store.first.views == views
    for view in range(K):
        shown = np.stack([views.apply(tiles[row], row, view) for row in range(10)])
        with torch.inference_mode():
            expected = model(((torch.from_numpy(shown) / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
        found = group["views"][:, view - 1] if view else group["embedding"][:]
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    assert "3 of each patch, seed 4, paper" in inspect_path(root / "paper.zarr")
    assert "80 px, the patch in its middle" in inspect_path(root / "paper.zarr")


@pytest.mark.parametrize("name", ["paper", "none"])
def test_the_student_sees_those_crops_from_the_store_or_the_slides(root: Path, name: str) -> None:
    store, tiles, seen = Store(root / f"{name}.zarr"), tiles_of(root), set()
    views = store.first.views
    rows = StoredRows([store.first], views=views, tell=print)
    for epoch in range(4):
        reader = rows.reader(RunDraws(1), epoch, "none")
        for row in range(store.num_rows):
            out = np.empty((PATCH, PATCH, 3), np.uint8)
            embedding = reader.read(row, out)
            view = int(row_views(np.array([row]), views, RunDraws(1), epoch)[0])
            assert np.array_equal(out, views.apply(tiles[row], row, view))
            assert np.array_equal(embedding, store.first.read_embedding(row, view))
            seen.add(view)
    assert seen == set(range(K))
    out = np.empty((PATCH, PATCH, 3), np.uint8)
    StoredRows([store.first], tell=print).read(2, out)  # as the figures and `evaluate` see it
    assert np.array_equal(out, centre(tiles[2], PATCH))


def test_verify_embeds_the_crops_again(root: Path) -> None:
    for name in ("paper", "none"):
        text, code = verify_store(root / f"{name}.zarr", root / "teacher.safetensors", 10, "cpu")
        assert (code, "10 rows embedded again, one of 3 views of each" in text) == (0, True), text


def test_a_further_teacher_sees_the_same_views(root: Path, plan: Plan, tmp_path: Path) -> None:
    out = Path(shutil.copytree(root / "paper.zarr", tmp_path / "s.zarr"))
    weights, names = write_teacher(tmp_path / "w.safetensors", "test_efficientnet"), [TEACHER, "test_efficientnet"]
    extract(plan, out, weights, teacher="test_efficientnet", views=2, views_seed=4, views_strength="strong")
    with pytest.raises(ConfigError, match=f"--views-strength paper of {TEACHER}, strong of test_efficientnet"):
        choose_teachers(Store(out), names, None)
    shutil.rmtree(out / "teachers")
    extract(plan, out, weights, teacher="test_efficientnet", views=2, views_seed=4, views_strength="paper")
    teachers = choose_teachers(Store(out), names, None)
    assert teachers.views == Views(2, 4, "paper", PATCH)
    rows = StoredRows(teachers.stored, views=teachers.views, tell=print)
    embedding = rows.read(1, np.empty((PATCH, PATCH, 3), np.uint8), 1)
    stored = [teacher.read_embedding(1, 1) for teacher in teachers.stored]
    assert np.array_equal(embedding, np.concatenate(stored))
    assert verify_store(out, weights, 4, "cpu", teacher="test_efficientnet")[1] == 0


def test_shards_of_tiles_are_made_again_to_the_same_bytes(root: Path, plan: Plan, tmp_path: Path) -> None:
    """After a kill before the ledger was written, and after a slide that was gone is back."""
    weights, options = root / "teacher.safetensors", {"views": K, "views_seed": 4, "views_strength": "paper"}
    out = Path(shutil.copytree(root / "paper.zarr", tmp_path / "s.zarr"))
    Store(out).first.ledger.forget(0)
    extract(plan, out, weights, **options)
    assert array_files(out) == array_files(root / "paper.zarr")
    slide = root / "slides" / "s1.svs"
    slide.rename(root / "away.svs")
    try:
        failed = extract(plan, tmp_path / "f.zarr", weights, **options)
    finally:
        (root / "away.svs").rename(slide)
    assert failed.num_failed == 5
    assert extract(plan, tmp_path / "f.zarr", weights, retry_failures=True, **options).num_failed == 0
    assert array_files(tmp_path / "f.zarr") == array_files(root / "paper.zarr")


def test_views_that_cannot_be_replayed_are_refused(
    root: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine, or by a program, that makes other views."""
    out = Path(shutil.copytree(root / "paper.zarr", tmp_path / "s.zarr"))
    teacher = Store(out).first
    require_replay(teacher)
    monkeypatch.setattr(replay, "views_probe", lambda _: "0" * 64)
    for refused in (
        lambda: StoredRows([teacher], views=teacher.views, tell=print),
        lambda: verify_store(out, root / "teacher.safetensors", 4, "cpu"),
        lambda: extract(plan, out, root / "teacher.safetensors", views=K, views_seed=4, views_strength="paper"),
    ):
        with pytest.raises(StoreError, match=r"its views \(paper\) cannot be replayed exactly here"):
            refused()
    StoredRows([teacher], tell=print)  # the patches themselves are read as ever


@pytest.mark.slow
def test_views_of_earlier_stores_are_probed_as_well(
    plan: Plan, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores without a strength record no probe: they are held against the one that their views have always had."""
    store = extract(
        plan_cohort(root / "slides" / "manifest.csv"), tmp_path / "s.zarr", root / "teacher.safetensors", views=2
    )
    teacher = store.store.first
    assert not {"views_strength", "views_probe"} & teacher.settings.keys()
    require_replay(teacher)
    change = views_module.change_stain
    monkeypatch.setattr(views_module, "change_stain", lambda *arguments: change(*arguments) ^ 1)
    views_probe.cache_clear()
    try:
        with pytest.raises(StoreError, match=r"its views \(mild\) cannot be replayed exactly here"):
            require_replay(teacher)
    finally:
        views_probe.cache_clear()


def test_the_refusal_names_what_makes_views(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Store(Path(shutil.copytree(root / "paper.zarr", tmp_path / "s.zarr"))).first
    monkeypatch.setattr(replay, "views_probe", lambda _: "0" * 64)
    made_by = re.escape(
        f"by g2l {metadata.version('g2l')}. Versions that differ (made with -> now): none that are recorded"
    )
    with pytest.raises(StoreError, match=made_by):
        require_replay(teacher)
    teacher.attributes["versions"] |= {"g2l": "0.1.5", "scipy": "1.0", "torch": "1.0"}
    with pytest.raises(StoreError, match=r"now\): g2l 0\.1\.5 -> \S+, scipy 1\.0 -> [^,]+\. Use"):
        require_replay(teacher)


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        ("none", "877d72a14b5430c0512e060cc9e790dfdb5945d0f3b065a7b31846bc7fcbb8a2"),
        ("flips", "7b370cfac6afe20193529462089a3dfe3c4aa0d18343b2f3dfd4173f26e7ed9c"),
        ("mild", EARLIER_PROBE),
        ("paper", "6c9923ccb558977a777fb826d71d1fac2974c4a12baf0e50add8b8cb23515e74"),
        ("strong", "9e2c617e77dde2d01018e989d3b0d19949b941995842618ebdcbcdd12e808858"),
    ],
)
def test_probes_do_not_change(strength: str, expected: str) -> None:
    """Stores say them: whoever changes the views, or the probe itself, makes every store of that strength useless."""
    assert views_probe(strength) == expected


@pytest.mark.parametrize("strength", VIEW_STRENGTHS)
def test_every_part_of_a_strength_occurs_in_its_probe(strength: str) -> None:
    table, tile_px, patch_px = VIEW_STRENGTHS[strength], views_module.PROBED_TILE_PX, views_module.PROBED_PATCH_PX
    views = range(1, views_module.PROBED_VIEWS + 1)
    drawn = [views_module.draw_view(views_module.ViewDraws(0, 0, view), strength, tile_px, patch_px) for view in views]
    assert {each.turn for each in drawn} == set(range(8 if table.turn else 4 if table.flips else 1))
    occurs = {
        "rescale": min(each.side_px for each in drawn) < patch_px < max(each.side_px for each in drawn),
        "stain": any(each.stain for each in drawn),
        "colours": any(each.colours for each in drawn),
        "blur": any(each.sigma_milli_px for each in drawn),
        "compression": any(each.quality for each in drawn),
    }
    assert occurs == {name: getattr(table, name) is not None for name in occurs}


def test_the_probe_tells_a_changed_level(monkeypatch: pytest.MonkeyPatch) -> None:
    before = views_probe("paper")
    change = views_module.change_colours
    monkeypatch.setattr(views_module, "change_colours", lambda patch, steps: change(patch, steps) ^ 1)
    views_probe.cache_clear()
    try:
        assert views_probe("paper") != before
        assert views_probe("none") == strength_settings("none", has_tiles=True)["views_probe"]
    finally:
        views_probe.cache_clear()


def test_what_is_asked_for_in_vain_is_refused_and_the_earlier_views_leave_no_trace(
    root: Path, plan: Plan, tmp_path: Path
) -> None:
    assert strength_settings("mild", has_tiles=False) == {}
    assert strength_settings("mild", has_tiles=True)["views_strength"] == "mild"
    with pytest.raises(ConfigError, match=r"nothing can be cropped.*--tile-px"):
        strength_settings("none", has_tiles=False)
    with pytest.raises(ConfigError, match=r"--views-strength: .* say with --views"):
        extract(plan, tmp_path / "s.zarr", root / "teacher.safetensors", views_strength="paper")
    with pytest.raises(StoreError, match=r"settings.views_strength: 'paper' -> 'strong'"):
        extract(plan, root / "paper.zarr", root / "teacher.safetensors", views=K, views_seed=4, views_strength="strong")
    require_replay(make_store(tmp_path / "old.zarr").first)
