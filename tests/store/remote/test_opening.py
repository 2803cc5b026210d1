import shutil
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, G2LError, StoreError
from pipeline.config.staging import StageFolder
from pipeline.store.remote.opening import is_small, open_store
from pipeline.store.store import Store


def test_a_folder_is_opened_as_it_is(store: Store) -> None:
    with open_store(store.folder, tell=print) as opened:
        assert opened.folder == store.folder
        assert opened.place == str(store.folder)


def test_an_address_gives_the_same_store_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    url, stage = f"file://{store.folder}", StageFolder(tmp_path / "stage")
    with open_store(Path(url), stage, tell=print) as opened:
        assert (opened.place, opened.first.place) == (url, url)
        assert opened.plan.hash == store.plan.hash
        assert opened.first.content_hash() == store.first.content_hash()
        assert list(opened.first.status()) == list(store.first.status())
        assert (opened.read_pixels(5) == store.read_pixels(5)).all()
        assert (opened.first.read_embedding(5) == store.first.read_embedding(5)).all()
        assert opened.folder.is_relative_to(tmp_path / "stage")
    assert not [path for path in (tmp_path / "stage").rglob("*") if path.is_file() and not path.name.endswith("lock")]


def test_what_is_no_store_and_what_cannot_be_an_address_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, kind, words in (
        (f"file://{tmp_path}/empty", StoreError, "no such store"),
        ("ftp://host/x", ConfigError, "not opened"),
        ("s3://user:word@b/x", ConfigError, "holds a user, a password"),
    ):
        with pytest.raises(kind, match=words), open_store(Path(path), tell=print):
            pass


def test_a_bound_too_small_for_the_metadata_is_named(store: Store, tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "stage", most_bytes=100)
    with (
        pytest.raises(G2LError, match=r"no room in .*stage for the .* of its metadata"),
        open_store(Path(f"file://{store.folder}"), stage, tell=print),
    ):
        pass


def test_damage_is_told_by_address(store: Store, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(store.folder, tmp_path / "store.zarr"))
    (folder / "shards" / "1.json").write_text("{")
    with (
        pytest.raises(StoreError, match=f"file://{folder}/shards/1.json: damaged ledger entry"),
        open_store(Path(f"file://{folder}"), tell=print) as opened,
    ):
        opened.first.status()
    (folder / "plan" / "zarr.json").write_text("{}")
    with (
        pytest.raises(StoreError, match=f"file://{folder}/plan: the store's plan is damaged"),
        open_store(Path(f"file://{folder}"), tell=print) as opened,
    ):
        _ = opened.plan
    (folder / "zarr.json").write_text("{}")
    with (
        pytest.raises(StoreError, match=f"file://{folder}: not a store of G2L"),
        open_store(Path(f"file://{folder}"), tell=print),
    ):
        pass


def test_small_files_are_metadata_plan_and_ledger() -> None:
    assert all(map(is_small, ("zarr.json", "plan/coords/c/0/0", "shards/3.json", "teachers/a/rounds/2/shards/0.json")))
    assert not any(map(is_small, ("pixels/c/0/0/0/0", "embedding/c/0/0", "failures.csv", "x.1-2-3.g2l-part/zarr.json")))
