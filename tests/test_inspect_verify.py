"""`inspect`, `verify` and `export`: what they say of good and of damaged outputs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import TEACHER, extract, plan_cohort, write_cohort, write_teacher
from store_factory import make_store, plain_vit, train_config

from pipeline.errors import EncoderError, G2LError, StoreError
from pipeline.plan import write_plan
from pipeline.store import Store
from stages.export_run import export_student
from stages.inspect_outputs import inspect_path, models_table
from stages.train_student import train_student
from stages.verify_store import embed_again, verify_store


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def good_store(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("good")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    extract(plan, folder / "store.zarr", weights)
    return folder / "store.zarr"


@pytest.fixture
def store(good_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good_store, tmp_path / "store.zarr")


def test_a_good_store_verifies_to_the_stored_precision(store: Path, weights: Path) -> None:
    text, good = verify_store(store, weights, 64, "cpu")
    assert good
    assert "3 of 3 shards: all files are as written" in text
    difference = embed_again(Store(store), weights, 10, "cpu")
    assert difference is not None
    assert difference.rows == 10
    assert 0 < difference.largest <= difference.scale * 2**-10  # float16 keeps 11 bits
    assert difference.min_cosine > 0.99999


@pytest.mark.parametrize("name", ["embedding/c/1/0", "pixels/c/0/0/0/0", "status/c/2"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_every_damaged_shard_file_is_found_and_named(store: Path, name: str, how: str) -> None:
    path = store / name
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    text, good = verify_store(store, None, 0, "cpu")
    assert not good
    assert name in text
    assert "DAMAGED" in text
    assert len([line for line in text.splitlines() if line.startswith("  ")]) == 1


def test_a_damaged_shard_is_mended_as_verify_says(store: Path, good_store: Path, weights: Path) -> None:
    (store / "embedding/c/1/0").write_bytes(b"")
    text, _ = verify_store(store, None, 0, "cpu")
    assert "delete shards/<i>.json of the damaged shards and run extract-teacher again" in text
    (store / "shards/1.json").unlink()
    extract(Store(store).plan, store, weights)
    assert verify_store(store, weights, 8, "cpu")[1]
    assert (store / "embedding/c/1/0").read_bytes() == (good_store / "embedding/c/1/0").read_bytes()


def test_embeddings_that_are_not_the_teachers_are_found(store: Path, weights: Path) -> None:
    """The file is whole and its hash is right, but its numbers come from elsewhere."""
    first, second = store / "embedding/c/0/0", store / "embedding/c/1/0"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    _swap_hashes(store)
    text, good = verify_store(store, weights, 64, "cpu")
    assert not good
    assert "NOT the same embeddings" in text


def _swap_hashes(store: Path) -> None:
    """Make the ledger agree with swapped embedding files of shards 0 and 1."""
    paths = [store / "shards" / f"{i}.json" for i in (0, 1)]
    entries = [json.loads(path.read_text()) for path in paths]
    names = ["embedding/c/0/0", "embedding/c/1/0"]
    entries[0]["files"][names[0]], entries[1]["files"][names[1]] = (
        entries[1]["files"][names[1]],
        entries[0]["files"][names[0]],
    )
    for path, entry in zip(paths, entries, strict=True):
        path.write_text(json.dumps(entry))


def test_another_teacher_is_refused(store: Path, tmp_path: Path) -> None:
    other = write_teacher(tmp_path / "other.safetensors", seed=9)
    with pytest.raises(EncoderError, match="not the weights of the store's teacher"):
        verify_store(store, other, 4, "cpu")
    with pytest.raises(EncoderError, match="give --weights FILE"):
        verify_store(store, None, 4, "cpu")


def test_a_damaged_plan_in_the_store_is_found(store: Path) -> None:
    path = store / "plan" / "coords" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(G2LError, match="damaged"):
        verify_store(store, None, 0, "cpu")


def test_inspect_says_what_it_is(good_store: Path) -> None:
    shown = inspect_path(good_store)
    for words in (TEACHER, "3 of 3 done", "24 ok", "jpegxl", "float16", "2 of 2 cases"):
        assert words in shown
    assert "64 px at 0.5 um/px" in inspect_path(good_store.with_name("plan.h5"))


def test_inspect_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(G2LError, match="no plan, store or run"):
        inspect_path(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(G2LError, match="not a readable plan"):
        inspect_path(tmp_path / "file")
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match="not a store"):
        inspect_path(tmp_path)


def test_export_and_inspect_a_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    trained = train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))
    shown = inspect_path(tmp_path / "run")
    for words in ("finished  yes", "log-sum, alpha 4", "epoch 2 of 2", "held-out patches"):
        assert words in shown
    words = export_student(tmp_path / "run", tmp_path / "student")
    assert "largest difference" in words
    model = timm.create_model(f"local-dir:{tmp_path / 'student'}", pretrained=True).eval()
    reference = timm.create_model(f"local-dir:{trained.run.student}", pretrained=True).eval()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert torch.equal(model(images), reference(images))
    with pytest.raises(G2LError, match="not overwritten"):
        export_student(tmp_path / "run", tmp_path / "student")


def test_export_refuses_a_student_that_is_not_the_trained_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    student = plain_vit(tmp_path / "start")
    first = train_student(store, tmp_path / "run", train_config(student))
    second = train_student(store, tmp_path / "run2", train_config(student, seed=1))
    shutil.copy(second.run.student / "model.safetensors", first.run.student / "model.safetensors")
    with pytest.raises(StoreError, match="other embeddings"):
        export_student(tmp_path / "run", tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_export_refuses_a_run_that_is_not_finished(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))
    shutil.rmtree(tmp_path / "run" / "student")
    with pytest.raises(G2LError, match="not finished"):
        export_student(tmp_path / "run", tmp_path / "student")


def test_the_table_of_models_names_what_matters() -> None:
    text = models_table()
    for words in ("h-optimus-0", "1,135 M", "1536", "hibou-l", "Apache-2.0", "virchow2", "cls+mean", "HF_TOKEN"):
        assert words in text
