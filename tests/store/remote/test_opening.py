import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from support.commands import child_environment
from support.staging import held_within

from pipeline.base.errors import ConfigError, G2LError, StoreError
from pipeline.config.staging import StageFolder
from pipeline.disk.files import bytes_below
from pipeline.slides.staging import room
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


OPENED_AND_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.store.remote.opening import open_store
with open_store(Path(sys.argv[1]), tell=print) as store:
    store.read_pixels(5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_fetched_is_removed_by_the_next(store: Store, tmp_path: Path) -> None:
    """Without --stage-dir, too: all commands of a user have one folder."""
    here, temporary = f"file://{store.folder}", tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", OPENED_AND_KILLED, here]
    for _ in range(2):
        done = subprocess.run(command, env=child_environment() | {"TMPDIR": str(temporary)}, check=False)
        assert done.returncode == -signal.SIGKILL
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        with open_store(Path(here), tell=print) as opened:
            assert opened.folder.is_relative_to(folder)
            assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def test_commands_of_a_user_share_the_bound_of_their_folder(store: Store, tmp_path: Path) -> None:
    """Together they take half of what was free, not each. The second one reads by range what has no room."""
    num_bytes = bytes_below(store.folder)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        patch.setattr(room.shutil, "disk_usage", lambda _: mock.Mock(free=3 * num_bytes - bytes_below(tmp_path)))
        said: list[str] = []
        for alone in (True, False):
            opened = stack.enter_context(open_store(Path(f"file://{store.folder}"), tell=said.append))
            opened.expect([opened.first])
            for row in range(store.plan.num_rows):  # from whatever is here, or else from there
                assert (opened.read_pixels(row) == store.read_pixels(row)).all()
            opened.first.read_embedding(0)
            assert not alone or held_within(10, lambda: bytes_below(tmp_path) > 0.9 * num_bytes)
        assert held_within(10, lambda: "the rest is read from the bucket" in said[-1])
        assert bytes_below(tmp_path) <= 1.5 * num_bytes


@pytest.mark.parametrize("taken", ["link", "readable", "file"])
def test_a_folder_that_others_could_have_made_is_not_used(store: Store, tmp_path: Path, taken: str) -> None:
    place, elsewhere = tmp_path / f"g2l-store-{os.geteuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if taken == "link":
        place.symlink_to(elsewhere)
    elif taken == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        with open_store(Path(f"file://{store.folder}"), tell=print) as opened:
            assert not opened.folder.is_relative_to(place)
            assert not opened.folder.resolve().is_relative_to(elsewhere)
    assert {path.name for path in tmp_path.iterdir()} == {place.name, "elsewhere"}


def test_no_place_for_temporary_files_is_told(store: Store) -> None:
    nowhere = FileNotFoundError(2, "No usable temporary directory")
    with (
        mock.patch.object(tempfile, "gettempdir", side_effect=nowhere),
        pytest.raises(G2LError, match=r"no folder for temporary files .* --stage-dir"),
        open_store(Path(f"file://{store.folder}"), tell=print),
    ):
        pass


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
