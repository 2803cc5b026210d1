"""`g2l merge` as a user calls it, after the parts that an array job makes."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.commands import call_g2l, succeed
from support.extraction import TEACHER, plan_cohort, store_files, write_cohort, write_teacher

from pipeline.cohort.plan_hdf5 import write_plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a teacher, the store `whole.zarr` and the parts `0.zarr` and `1.zarr`."""
    folder = tmp_path_factory.mktemp("made")
    write_plan(plan_cohort(write_cohort(folder / "slides")), folder / "plan.h5")
    write_teacher(folder / "t.safetensors")
    succeed(*words(folder, "whole.zarr"))
    for task in (0, 1):
        said = succeed(*words(folder, f"{task}.zarr"), "--part", f"{task + 1}/2")
        assert f"note: part {task + 1}/2 reads" in said
        assert f"part {task + 1}/2 of a store" in said
    return folder


def words(folder: Path, out: str) -> list[object]:
    teacher = ["--teacher", TEACHER, "--weights", folder / "t.safetensors", "--device", "cpu"]
    return ["extract-teacher", folder / "plan.h5", "--out", folder / out, *teacher, "--rows-per-shard", 8]


def without_out(files: dict[str, bytes], out: Path) -> dict[str, bytes]:
    """Files of a store whose record does not say where it is."""
    return files | {"config.toml": files["config.toml"].replace(str(out).encode(), b"OUT")}


def test_the_store_is_that_of_one_run(made: Path, tmp_path: Path) -> None:
    """With its record: the finished stage says so, and a further run has nothing to do."""
    out = made / "merged.zarr"
    said = succeed("merge", made / "0.zarr", made / "1.zarr", "--out", out)
    assert "files linked: 9, copied: 0; every shard file was checked" in said
    assert without_out(store_files(out), out) == without_out(store_files(made / "whole.zarr"), made / "whole.zarr")
    assert "merged before: 3 shards" in succeed("merge", made / "0.zarr", made / "1.zarr", "--out", out)
    assert "nothing was left to do" in succeed(*words(made, "merged.zarr"))
    assert "3 of 3 shards: all files are as written" in succeed("verify", out, "--sample", 0)


def test_parts_are_described_and_verified_as_parts(made: Path) -> None:
    assert "part 2/2: 2 of 2 shards: all files are as written" in succeed("verify", made / "1.zarr", "--sample", 0)
    assert "2 of 2 of part 2/2 done" in succeed("inspect", made / "1.zarr")
    assert "nothing was left to do" in succeed(*words(made, "1.zarr"), "--part", "2/2")
    code, _, err = call_g2l(*words(made, "1.zarr"))
    assert (code, "1.zarr is part 2/2 of a store" in err) == (1, True)


def test_an_unfinished_part_is_continued_with_what_its_users_are_told(made: Path, tmp_path: Path) -> None:
    part = shutil.copytree(made / "1.zarr", tmp_path / "1.zarr")
    (part / "shards" / "2.json").unlink()
    code, out, err = call_g2l("verify", part, "--sample", 0)
    assert (code, "1 shard pending: run extract-teacher --part 2/2 again to continue" in out + err) == (3, True)
    again = words(made, "1.zarr")
    again[again.index("--out") + 1] = part
    size = again.index("--rows-per-shard")
    code, _, err = call_g2l(*again[:size], *again[size + 2 :], "--part", "2/2")
    assert (code, "settings.rows_per_shard: 8 -> " in err) == (1, True), err
    assert "16 rows of 96 dimensions in 2 shards" in succeed(*again, "--part", "2/2")


def test_copies_where_no_links_can_be_made_are_said(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: Path, target: Path, **options: object) -> None:
        if str(source).startswith(str(made)):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        link(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", refuse)
    parts = [made / "0.zarr", made / "1.zarr"]
    assert "note: 9 files copied: hard links cannot be made" in succeed("merge", *parts, "--out", tmp_path / "m")
    assert "copied: 9; every" in succeed("merge", *parts, "--out", tmp_path / "n", "--no-link")


def test_wrong_calls(made: Path, tmp_path: Path) -> None:
    calls = {
        ("merge", "--out", tmp_path / "m"): "missing: parts",
        ("merge", made / "0.zarr", "--out", tmp_path / "m"): "of 2 parts some are missing: 2",
        ("merge", tmp_path, "--out", tmp_path / "m"): "no such store",
        (*words(made, "x"), "--part", "3/2"): "a part is I/N",
        (*words(made, "x"), "--part", "1/4"): "has 3 shards, which cannot be divided into 4 parts",
        (*words(made, "whole.zarr"), "--part", "1/2"): "whole.zarr is not a part of a store",
    }
    for call, message in calls.items():
        code, _, err = call_g2l(*call)
        assert (code, message in err) == (1, True), err
    assert not (tmp_path / "m").exists()


def test_parts_that_are_read_only_are_merged(made: Path, tmp_path: Path) -> None:
    parts = [shutil.copytree(made / f"{task}.zarr", tmp_path / f"{task}.zarr") for task in (0, 1)]
    for part in parts:
        part.chmod(0o555)
    try:
        succeed("merge", *parts, "--out", tmp_path / "m")
    finally:
        for part in parts:
            part.chmod(0o755)
