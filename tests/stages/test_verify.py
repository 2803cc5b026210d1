"""`verify`: it calls a good store good, finds every damage, and embeds rows again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.extraction import extract, plan_cohort, write_cohort, write_teacher
from support.store_writing import edit_json, write_shard
from support.stores import make_store

from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, EncoderError, G2LError, StoreError
from pipeline.store.shards import ShardFile
from pipeline.store.store import Store
from stages.verify import Difference, TeacherCheck, embed_again, verify_store


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


@pytest.mark.slow
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
)
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
)
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
)
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
    assert f"embedding, shard 1: 1 row ({row})" in text


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
    assert f"pixels, shard 1: 1 row ({changed})" in text


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


def test_the_findings_say_what_to_do(tmp_path: Path) -> None:
    """Damage in the files is done again by the command that made them; damage in the metadata is not."""
    teacher = make_store(tmp_path / "store.zarr").first
    whole = TeacherCheck(teacher, [], is_described=True, num_pending=0).words()
    assert whole == ["4 of 4 shards: all files are as written"]
    pending = TeacherCheck(teacher, [], is_described=True, num_pending=1).words()
    assert pending == [
        "3 of 4 shards are done, and their files are as written",
        "1 shard pending: run extract-teacher again to continue",
    ]
    headline, problem, advice = TeacherCheck(teacher, ["x: missing"], is_described=True, num_pending=0).words()
    assert (headline, problem) == ("4 of 4 shards are done: DAMAGED", "  x: missing")
    assert advice == (
        "delete shards/<i>.json of the damaged shards and run extract-teacher again: only they are done again"
    )
    assert (
        TeacherCheck(teacher, ["x"], is_described=False, num_pending=0)
        .words()[-1]
        .endswith("take zarr.json from a copy, or make the store again")
    )


def test_a_difference_is_told_in_a_line() -> None:
    words = Difference(rows=8, largest=0.01234, scale=2.5, min_cosine=0.9995).words(" by uni")
    assert words == (
        "8 rows embedded again by uni: largest difference 0.0123 of values up to 2.5, smallest cosine 0.999500"
    )


def test_without_a_finished_row_nothing_is_embedded_again(tmp_path: Path) -> None:
    """And no teacher is asked for: these weights are nowhere."""
    store = make_store(tmp_path / "store.zarr", shards=0)
    assert embed_again(store.first, tmp_path / "none.safetensors", 8, "cpu") is None
