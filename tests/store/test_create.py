"""Making a store, and continuing one: complete or absent, and under the same plan, teacher and settings only."""

import errno
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.commands import leftovers
from support.extraction import array_files, made_up_plan
from support.mounts import mounted, needs_mounts
from support.store_writing import PATCH_PX, ROWS, continued_store, spec, write_pending

from pipeline.base.errors import StoreError
from pipeline.cohort.plan import Plan
from pipeline.disk.locks import exclusive
from pipeline.store.create import (
    create_empty_like,
    create_store,
    is_store,
    open_further,
    open_to_continue,
    require_same,
)
from pipeline.store.format import StoreSpec
from pipeline.store.store import Store


@pytest.mark.parametrize("name", ["rename", "mkdir", "fsync"])
def test_a_store_that_cannot_be_made_is_absent(
    name: str, tmp_path: Path, plan: Plan, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "place" / "store.zarr"
    folder.parent.mkdir()

    def before(called: str) -> None:
        if called == name:
            raise OSError(errno.ENOSPC, "No space left on device")

    hook(before)
    with pytest.raises(StoreError, match=r"cannot make the store .*store.zarr: No space left"):
        create_store(folder, plan, spec(), {})
    monkeypatch.undo()
    assert list(folder.parent.iterdir()) == []
    continued_store(folder, plan)


def test_a_store_is_told_from_a_free_place_and_from_anything_else(tmp_path: Path, plan: Plan) -> None:
    assert not is_store(tmp_path / "absent.zarr")
    (tmp_path / "empty.zarr").mkdir()
    assert not is_store(tmp_path / "empty.zarr")
    assert is_store(continued_store(tmp_path / "store.zarr", plan).folder)
    (tmp_path / "store.zarr" / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"store\.zarr exists and is not a store; nothing is overwritten"):
        is_store(tmp_path / "store.zarr")


def test_what_a_run_killed_while_making_a_store_left_is_cleared(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "store.zarr"
    aside = tmp_path / "store.zarr.g2l-part"
    (aside / "embedding").mkdir(parents=True)
    (aside / "zarr.json").write_text("{")
    continued_store(folder, plan)
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_continuing_clears_whatever_lies_half_written(copy: Path, plan: Plan, finished: Path) -> None:
    for name in ("shards/7.json", "pixels/c/7/0/0/0", "failures.csv"):
        path = copy / (name + ".g2l-part")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    open_to_continue(copy, plan, spec())
    assert leftovers(copy.parent) == []
    assert array_files(copy) == array_files(finished)


@needs_mounts
def test_a_volume_becomes_a_store(tmp_path: Path, finished: Path, plan: Plan, encoded: list[bytes]) -> None:
    """As `docker -v` gives it: the folder itself is a mount point below one that may not be written."""
    with mounted("-t", "tmpfs", "none", at=tmp_path / "volume") as volume:
        with exclusive(volume, "me"):
            write_pending(continued_store(volume, plan), encoded)
        assert array_files(volume) == array_files(finished)
        assert leftovers(tmp_path) == []


def test_another_plan_teacher_or_setting_is_refused_by_name(copy: Path, plan: Plan) -> None:
    with pytest.raises(StoreError, match="plan_hash: ") as caught:
        open_to_continue(copy, made_up_plan(ROWS + 1, PATCH_PX), spec())
    assert "teacher." not in str(caught.value)
    other = StoreSpec(spec().teacher | {"weights_sha256": "2" * 64, "new": 1}, spec(dtype="float32").settings)
    with pytest.raises(StoreError, match="is not continued") as caught:
        open_to_continue(copy, plan, other)
    told = str(caught.value)
    assert f"teacher.weights_sha256: '{'1' * 64}' -> '{'2' * 64}'" in told
    assert "teacher.new: nothing -> 1" in told
    assert "settings.dtype: 'float16' -> 'float32'" in told
    assert "batch_size" not in told
    assert "plan_hash" not in told


def test_what_is_missing_of_a_store_under_other_versions_is_told(
    copy: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "zarr.json"
    record = json.loads(path.read_text())
    record["attributes"]["g2l"]["versions"] = {"imagecodecs": "1.0"}
    path.write_text(json.dumps(record))
    open_to_continue(copy, plan, spec())
    assert "other versions" not in capsys.readouterr().err  # it is finished: nothing is added
    Store(copy).first.ledger.path(0).unlink()
    open_to_continue(copy, plan, spec())
    assert f"imagecodecs 1.0 -> {metadata.version('imagecodecs')}" in capsys.readouterr().err


def test_weights_count_by_their_hash_and_not_by_their_name(tmp_path: Path, plan: Plan) -> None:
    def named(weights: str, sha: str = "1" * 64) -> StoreSpec:
        return StoreSpec(spec().teacher | {"weights": weights, "weights_sha256": sha}, spec().settings)

    continued_store(tmp_path / "s.zarr", plan, named("a.safetensors"))
    assert open_to_continue(tmp_path / "s.zarr", plan, named("b.safetensors")).first.spec == named(
        "a.safetensors"
    )  # as recorded
    with pytest.raises(StoreError, match=r"teacher\.weights: 'a(.|\n)*teacher\.weights_sha256: "):
        open_to_continue(tmp_path / "s.zarr", plan, named("b.safetensors", "2" * 64))


def of_teacher(name: str, sha: str = "2" * 64, **settings: Any) -> StoreSpec:
    """How the embeddings of a further teacher are made."""
    return StoreSpec({"name": name, "width": 3, "weights_sha256": sha}, spec(pixels="none", **settings).settings)


def test_arrays_like_a_teachers_have_its_metadata(copy: Path, plan: Plan, tmp_path: Path) -> None:
    store = Store(copy)
    further = open_further(store, plan, of_teacher("second", rows_per_shard=5), {"python": "3"})
    for teacher, place in ((store.first, "first"), (further, "further")):
        empty = tmp_path / place
        assert create_empty_like(teacher, empty) == teacher.attributes
        made = {path.relative_to(empty): path.read_bytes() for path in empty.rglob("zarr.json")}
        assert made == {name: (teacher.folder / name).read_bytes() for name in made}
        assert len(made) == (8 if place == "first" else 3)


def test_a_further_teacher_is_looked_at_before_anything_is_written(copy: Path, plan: Plan) -> None:
    def look() -> dict[str, Any]:
        raise StoreError("it gives NaN")

    with pytest.raises(StoreError, match="it gives NaN"):
        open_further(Store(copy), plan, of_teacher("second"), {}, look)
    assert not (copy / "teachers").exists()
    made = open_further(Store(copy), plan, of_teacher("second"), {}, lambda: {"preflight": {"rows": 4}})
    assert made.attributes["preflight"] == {"rows": 4}
    again = open_further(Store(copy), plan, of_teacher("second"), {}, look)  # made already: there is nothing to look at
    assert again.ledger.pending() == [0, 1, 2]


def test_a_further_teacher_is_continued_as_it_was_begun_only(copy: Path, plan: Plan) -> None:
    open_further(Store(copy), plan, of_teacher("second"), {})
    for other, words in (
        (of_teacher("second", dtype="float32"), "settings.dtype: 'float16' -> 'float32'"),
        (of_teacher("second", "3" * 64), "teacher.weights_sha256: "),
    ):
        with pytest.raises(StoreError, match=words):
            open_further(Store(copy), plan, other, {})
    with pytest.raises(StoreError, match="plan_hash: "):
        open_further(Store(copy), made_up_plan(ROWS + 1, PATCH_PX), of_teacher("third"), {})
    assert list(Store(copy).teachers) == ["made up", "second"]


def test_no_two_teachers_have_the_same_weights_or_the_same_folder(copy: Path, plan: Plan) -> None:
    open_further(Store(copy), plan, of_teacher("a/b"), {})
    for other, words in (
        (of_teacher("other"), "has embeddings of these weights already, of the teacher a/b"),
        (of_teacher("other", "1" * 64), "has embeddings of these weights already, of the teacher made up"),
        (of_teacher("a:b", "3" * 64), "has embeddings of a/b, in files of the name that those of a:b would have"),
    ):
        with pytest.raises(StoreError, match=words):
            open_further(Store(copy), plan, other, {})
    assert list(Store(copy).teachers) == ["made up", "a/b"]


def test_another_teacher_is_told_that_a_finished_store_takes_it(copy: Path, plan: Plan) -> None:
    with pytest.raises(StoreError, match="is not continued") as caught:
        require_same(Store(copy).first, plan, of_teacher("second"))
    assert "finish the store" not in str(caught.value)
    Store(copy).first.ledger.forget(2)
    with pytest.raises(StoreError, match=r"Choose another --out, or finish the store: then it takes a further teacher"):
        require_same(Store(copy).first, plan, of_teacher("second"))
