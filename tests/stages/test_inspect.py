"""`inspect`, `verify` and `export`: what they say of good and of damaged outputs."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.commands import leftovers
from support.extraction import TEACHER, extract, plan_cohort, write_cohort, write_teacher
from support.stores import make_store, plain_vit, train_config

from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, EncoderError, G2LError, PlanError, StoreError
from pipeline.cohort.plan import read_plan, write_plan
from pipeline.store.shards import ShardFile, ShardWriter
from pipeline.store.store import Store
from stages.export import export_student
from stages.inspect import describe_model, inspect_path, models_table
from stages.train_student import train_student
from stages.verify import embed_again, verify_store


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
    text, code = verify_store(store, weights, 64, "cpu")
    assert code == EXIT_OK
    assert "3 of 3 shards: all files are as written" in text
    difference = embed_again(Store(store).first, weights, 10, "cpu")
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
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert name in text
    assert "DAMAGED" in text
    assert len([line for line in text.splitlines() if line.startswith("  ")]) == 1


def test_a_damaged_shard_is_mended_as_verify_says(store: Path, good_store: Path, weights: Path) -> None:
    (store / "embedding/c/1/0").write_bytes(b"")
    text, _ = verify_store(store, None, 0, "cpu")
    assert "delete shards/<i>.json of the damaged shards and run extract-teacher again" in text
    (store / "shards/1.json").unlink()
    extract(Store(store).plan, store, weights)
    assert verify_store(store, weights, 8, "cpu")[1] == EXIT_OK
    assert (store / "embedding/c/1/0").read_bytes() == (good_store / "embedding/c/1/0").read_bytes()


def test_embeddings_that_are_not_the_teachers_are_found(store: Path, weights: Path) -> None:
    """The file is whole and its hash is right, but its numbers come from elsewhere."""
    first, second = store / "embedding/c/0/0", store / "embedding/c/1/0"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    _swap_hashes(store)
    text, code = verify_store(store, weights, 64, "cpu")
    assert code == EXIT_ERROR
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


def test_the_teachers_file_is_remembered_and_its_hash_is_checked(store: Path, weights: Path, tmp_path: Path) -> None:
    text, code = verify_store(store, None, 4, "cpu")  # as the guide writes it
    assert (code, "4 rows embedded again" in text) == (EXIT_OK, True)
    path = store / "zarr.json"
    whole = json.loads(path.read_text())
    assert whole["attributes"]["g2l"]["weights_file"] == str(weights.absolute())
    other = write_teacher(tmp_path / "other.safetensors", seed=9)
    for place, words in (
        (
            tmp_path / "gone.pth",
            r"weights came from .*gone.pth, where they are not now. Say with --weights FILE .*--sample",
        ),
        (None, r"weights came from teacher.safetensors, where they are not now"),  # a store of an earlier version
        (other, r"other.safetensors: these are not the weights of the store's teacher: SHA-256"),
    ):
        changed = json.loads(json.dumps(whole))
        changed["attributes"]["g2l"]["weights_file"] = place and str(place)
        path.write_text(json.dumps(changed))
        text, code = verify_store(store, None, 4, "cpu")
        assert code == EXIT_PARTIAL
        assert "3 of 3 shards: all files are as written" in text  # the checksums are done all the same
        assert re.search(f"no row embedded again: .*{words}", text)
        assert verify_store(store, None, 0, "cpu")[1] == EXIT_OK  # nothing more was asked


def test_damage_is_found_without_the_teachers_file(store: Path, tmp_path: Path) -> None:
    path = store / "zarr.json"
    path.write_text(path.read_text().replace('"weights_file"', '"other"'))
    shard = store / "embedding" / "c" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert verify_store(store, None, 4, "cpu")[1] == EXIT_ERROR


def test_a_damaged_plan_in_the_store_is_found(store: Path) -> None:
    path = store / "plan" / "coords" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(G2LError, match="damaged"):
        verify_store(store, None, 0, "cpu")


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def write_shard(store: Path, name: str, shard: int, chunks: list[bytes | None]) -> None:
    """Write a shard file anew, and let the ledger agree with its bytes."""
    opened = Store(store)
    path = opened.first.shard_path(name, shard)
    with ShardWriter(path, len(chunks)) as writer:
        for chunk in chunks:
            writer.append(chunk)
        entry = writer.commit()
    ledger = opened.first.ledger.path(shard)
    edit_json(ledger, lambda value: value["files"].__setitem__(path.relative_to(store).as_posix(), entry))


def test_a_store_without_pixels_is_verified_from_slides_that_moved(tmp_path: Path, weights: Path) -> None:
    plan = plan_cohort(write_cohort(tmp_path / "slides"))
    extract(plan, tmp_path / "store.zarr", weights, pixels="none")
    (tmp_path / "slides").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="not now"):
        verify_store(tmp_path / "store.zarr", weights, 4, "cpu")
    text, code = verify_store(tmp_path / "store.zarr", weights, 4, "cpu", tmp_path / "moved")
    assert code == EXIT_OK
    assert "4 rows embedded again" in text


@pytest.mark.parametrize("name", ["embedding", "pixels", "status", "plan/slide"])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["shape"].__setitem__(0, value["shape"][0] + 1),
        lambda value: value.__setitem__("data_type", "float32"),
        lambda value: value["codecs"].clear(),
        lambda value: value.__setitem__("fill_value", 1),
        lambda value: value["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 48),
        lambda value: value.__setitem__("node_type", "group"),
    ],
)  # fmt: skip
def test_tampered_metadata_of_an_array_are_found_and_named(store: Path, name: str, change: Any) -> None:
    edit_json(store / name / "zarr.json", change)
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert f"  {name}/zarr.json: no" in text
    assert len([line for line in text.splitlines() if line.startswith("  ")]) == 1


def test_unreadable_and_missing_metadata_are_found(store: Path) -> None:
    (store / "embedding" / "zarr.json").write_text("{")
    (store / "status" / "zarr.json").unlink()
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert "embedding/zarr.json: no metadata of an array" in text
    assert "status/zarr.json: missing" in text
    assert "the store's metadata are damaged" in text


def test_the_same_metadata_in_other_words_are_right(store: Path) -> None:
    """Another zarr may leave out what is the default."""
    edit_json(store / "embedding" / "zarr.json", lambda value: value.pop("storage_transformers"))
    assert verify_store(store, None, 0, "cpu")[1] == EXIT_OK


@pytest.mark.parametrize(
    "change",
    [
        lambda g2l: g2l.__setitem__("rows", g2l["rows"] - 1),
        lambda g2l: g2l.__setitem__("patch_px", 32),
        lambda g2l: g2l["status_codes"].__setitem__("OK", 2),
        lambda g2l: g2l["settings"].__setitem__("dtype", "float32"),
        lambda g2l: g2l["teacher"].__setitem__("width", 97),
    ],
)  # fmt: skip
def test_tampered_attributes_of_the_store_are_found(store: Path, change: Any) -> None:
    edit_json(store / "zarr.json", lambda value: change(value["attributes"]["g2l"]))
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert "zarr.json: " in text


def test_a_store_of_an_unknown_type_is_named(store: Path) -> None:
    edit_json(store / "zarr.json", lambda value: value["attributes"]["g2l"]["settings"].update(dtype="float99"))
    with pytest.raises(StoreError, match=r"zarr\.json: the store's metadata are damaged \(dtype is 'float99'"):
        verify_store(store, None, 0, "cpu")


def test_a_tampered_column_of_slides_is_found(store: Path) -> None:
    path = next(path for path in (store / "plan" / "slide" / "c").rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert "plan/slide: not the plan's slides" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry["status"].__setitem__("OK", 7), "its status counts are {'OK': 7}"),
        (lambda entry: entry.__setitem__("status", {"OK": 7, "EMPTY": 1}), "its status counts are"),
        (lambda entry: entry.__setitem__("rows", [8, 17]), "its rows are [8, 17], not [8, 16]"),
        (lambda entry: entry["files"].popitem(), "its files are"),
        (lambda entry: entry["failures"].append({"row": 9, "status": "EMPTY"}), "its failures are not"),
        (lambda entry: entry["failures"].append({"status": "EMPTY"}), "damaged ledger entry"),
        (lambda entry: entry.__setitem__("files", 3), "damaged ledger entry"),
        (lambda entry: entry.pop("status"), "damaged ledger entry"),
    ],
)  # fmt: skip
def test_a_tampered_ledger_is_found_and_named(store: Path, change: Any, words: str) -> None:
    edit_json(store / "shards" / "1.json", change)
    text, code = verify_store(store, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert "shards/1.json: " in text
    assert words in text


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A small store with a failed row, 17, in its second shard."""
    return make_store(tmp_path / "failing.zarr", failed=[17]).folder


def test_a_store_with_failed_rows_is_whole(failing: Path) -> None:
    assert verify_store(failing, None, 0, "cpu") == ("4 of 4 shards: all files are as written", EXIT_OK)


@pytest.mark.parametrize(("row", "value"), [(16, np.nan), (17, 0.5), (18, np.inf)])
def test_embeddings_that_their_status_denies_are_found(failing: Path, row: int, value: float) -> None:
    values = Store(failing).first.read_embeddings(1).copy()
    values[row - 16, 3] = value
    write_shard(failing, "embedding", 1, [values.tobytes()])
    text, code = verify_store(failing, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert f"embedding, shard 1: 1 rows ({row})" in text


@pytest.mark.parametrize("how", ["lost", "added"])
def test_pixels_that_their_status_denies_are_found(failing: Path, how: str) -> None:
    store = Store(failing)
    file = ShardFile(store.first.shard_path("pixels", 1), store.first.rows_per_shard)
    images = [file.read_chunk(i) for i in range(store.first.rows_per_shard)]
    changed = 18 if how == "lost" else 17
    images[changed - 16] = None if how == "lost" else images[0]
    write_shard(failing, "pixels", 1, images)
    text, code = verify_store(failing, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert f"pixels, shard 1: 1 rows ({changed})" in text


def test_rows_that_are_not_done_in_a_done_shard_are_found(failing: Path) -> None:
    status = Store(failing).first.read_status(1).copy()
    status[4] = 0
    write_shard(failing, "status", 1, [status.tobytes()])
    text, code = verify_store(failing, None, 0, "cpu")
    assert code == EXIT_ERROR
    assert "rows of shard 1 are ABSENT, though the shard is done" in text


@pytest.mark.parametrize("done", [0, 1])
def test_an_unfinished_store_is_not_called_good(tmp_path: Path, done: int) -> None:
    store = make_store(tmp_path / "store.zarr", shards=done)
    text, code = verify_store(store.folder, None, 0, "cpu")
    assert code == EXIT_PARTIAL
    assert text.startswith(f"{done} of 4 shards are done")
    assert f"{4 - done} shards pending" in text
    assert ("as written" in text) == (done > 0)


def test_an_unfinished_store_is_sampled_and_damage_comes_first(store: Path, weights: Path) -> None:
    (store / "shards" / "2.json").unlink()
    text, code = verify_store(store, weights, 4, "cpu")
    assert code == EXIT_PARTIAL
    assert "4 rows embedded again" in text
    (store / "embedding/c/1/0").write_bytes(b"")
    assert verify_store(store, weights, 4, "cpu")[1] == EXIT_ERROR


def test_inspect_says_what_it_is(good_store: Path) -> None:
    shown = inspect_path(good_store)
    for words in (TEACHER, "3 of 3 done", "24 ok", "jpegxl", "float16", "2 of 2 cases"):
        assert words in shown
    assert "64 px at 0.5 um/px" in inspect_path(good_store.with_name("plan.h5"))


def test_inspect_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(G2LError, match="no plan, store, run or exported student"):
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
    for folder, beside in ((tmp_path / "student", "adapters"), (tmp_path / "run" / "student", "nothing")):
        shown = inspect_path(folder)
        assert re.search(rf"beside it +{beside}\n", shown)
        for words in ("test_vit", "32 dimensions", "12 dimensions", "32 px", f"local-dir:{folder}", "load_projector",
                      "distilled from", "epoch 2, step ", trained.run.read_identity()["plan"]):  # fmt: skip
            assert words in shown
    assert not leftovers(tmp_path)
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
    assert not leftovers(tmp_path)
    (first.run.student / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(StoreError, match="timm does not load"):
        export_student(tmp_path / "run", tmp_path / "student")
    assert not (tmp_path / "student").exists()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("where", ["copy", "rename", "kill"])
def test_an_export_that_fails_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    store = make_store(tmp_path / "store.zarr")
    train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))

    def full(source: str, to: str, **_options: Any) -> None:
        if where == "kill":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), to)

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "rename") if where == "rename" else (shutil, "copyfile")), full)
        with pytest.raises(KeyboardInterrupt if where == "kill" else G2LError) as caught:
            export_student(tmp_path / "run", tmp_path / "student")
    if where != "kill":
        assert "No space left on device" in str(caught.value)
        assert "[(" not in str(caught.value)
    assert not (tmp_path / "student").exists()
    assert not leftovers(tmp_path)
    (tmp_path / "student.g2l-part").mkdir()  # as a killed process leaves it
    export_student(tmp_path / "run", tmp_path / "student")
    assert sorted(os.listdir(tmp_path / "student")) == sorted([*os.listdir(tmp_path / "run" / "student"), "adapters"])


def test_inspect_refuses_a_damaged_student(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "projector.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(EncoderError, match=r"config.json: architecture is missing"):
        inspect_path(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "x", "pretrained_cfg": {"input_size": [3, 8, 8]}}')
    with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector of an exported student"):
        inspect_path(tmp_path)


@pytest.mark.parametrize("kind", ["CSV", "folder"])
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.csv"
    if kind == "CSV":
        path.write_text("slide_id,path\na,a.svs\n")
        with pytest.raises(PlanError, match="HDF5"):
            inspect_path(path)
    else:
        path.mkdir()
    with pytest.raises(
        PlanError, match=r"m\.csv: not a readable plan .*`g2l plan` makes one from a manifest"
    ) as caught:
        read_plan(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "errno" not in str(caught.value)


def test_export_refuses_a_place_inside_the_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    trained = train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))
    with pytest.raises(G2LError, match="lies inside the run"):
        export_student(tmp_path / "run", trained.run.student / "x")
    assert not (trained.run.student / "x").exists()


def test_export_refuses_a_run_that_is_not_finished(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    train_student(store, tmp_path / "run", train_config(plain_vit(tmp_path / "start")))
    shutil.rmtree(tmp_path / "run" / "student")
    with pytest.raises(G2LError, match="not finished"):
        export_student(tmp_path / "run", tmp_path / "student")


def test_the_table_of_models_names_what_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = models_table()
    for words in ("h-optimus-0", "1,135 M", "1536", "hibou-l", "Apache-2.0", "virchow2", "cls+mean", "h0-mini-mean"):
        assert words in text
    monkeypatch.setattr("stages.inspect.cached_weights", lambda spec: tmp_path if spec.name == "uni" else None)
    cached = [line.split()[0] for line in models_table().splitlines() if re.search(r"(yes|no) +yes", line)]
    assert cached == ["uni"]


def test_one_model_comes_with_the_way_to_its_weights() -> None:
    said = describe_model("uni2-h")
    for words in ("681.0 M", "1536 dimensions", "https://huggingface.co/MahmoodLab/UNI2-h", "gated: ask for access",
                  "HF_TOKEN", "--weights FILE", "HF_HUB_OFFLINE=1"):  # fmt: skip
        assert words in said
    assert "as its own configuration says" in describe_model("resnet18.a1_in1k")
    assert "https://huggingface.co/owner/name" in describe_model("hf-hub:owner/name")
    with pytest.raises(EncoderError, match="no encoder is called nope"):
        describe_model("nope")


def test_a_model_in_a_folder_is_there_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"nope: no such folder"):
        describe_model(f"local-dir:{tmp_path}/nope")
    with pytest.raises(EncoderError, match=r"no config.json is in this folder"):
        describe_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    assert re.search("file +no", describe_model(f"local-dir:{tmp_path}"))
    assert "Name the folder" in describe_model(f"local-dir:{tmp_path}")
    (tmp_path / "model.safetensors").touch()
    assert re.search(f"file +{tmp_path}/model.safetensors$", describe_model(f"local-dir:{tmp_path}"))
