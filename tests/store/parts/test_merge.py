"""Merged parts are the store of one run, to the byte; what is not all parts of one plan is refused."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import without_leftovers
from support.extraction import extract, plan_cohort, store_files, write_cohort, write_teacher

from pipeline.base.errors import BusyError, StoreError
from pipeline.base.units import format_bytes
from pipeline.cohort.plan import Plan
from pipeline.disk.locks import exclusive
from pipeline.store.changed_slides import CHANGED_FILE, read_changed
from pipeline.store.parts.merge import merge_parts
from pipeline.store.plan_arrays import read_stored_plan
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers

COUNT = 3


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_cohort(write_cohort(tmp_path_factory.mktemp("slides")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, planned: Plan, weights: Path) -> Path:
    """A folder with the store `whole` of one run and the stores `part-1` to `part-3`; shared, not changed."""
    folder = tmp_path_factory.mktemp("made")
    extract(planned, folder / "whole", weights, rows_per_shard=4)
    for number in range(1, COUNT + 1):
        extract(planned, folder / f"part-{number}", weights, rows_per_shard=4, part=f"{number}/{COUNT}")
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> list[Path]:
    """Copies of the parts."""
    return [shutil.copytree(made / f"part-{i}", tmp_path / f"part-{i}") for i in range(1, COUNT + 1)]


@pytest.mark.parametrize("link", [True, False])
def test_it_is_the_store_of_one_run(made: Path, tmp_path: Path, link: bool) -> None:
    """Every file, in whatever order the parts are given; of a ledger entry all but its seconds."""
    merged = merge_parts([made / f"part-{i}" for i in (2, 3, 1)], tmp_path / "m", link=link)
    assert store_files(tmp_path / "m") == store_files(made / "whole")
    assert (merged.num_linked > 0, merged.num_copied > 0) == (link, not link)
    some = next((tmp_path / "m" / "pixels" / "c").rglob("0/0/0/0")) if link else None
    assert some is None or some.stat().st_nlink == 2
    assert Store(tmp_path / "m").first.content_hash() == Store(made / "whole").first.content_hash()
    choose_teachers(Store(tmp_path / "m"), None, None)
    without_leftovers(tmp_path / "m")


def test_where_no_hard_links_can_be_made_it_copies(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def refuse(source: Path, target: Path, **options: Any) -> None:
        if "/part-" in str(source):  # zarr makes links as well
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    merged = merge_parts([made / f"part-{i}" for i in (1, 2, 3)], tmp_path / "m", link=True)
    assert merged.num_linked == 0
    assert store_files(tmp_path / "m") == store_files(made / "whole")


def test_a_shard_that_was_linked_before_a_kill_leaves_nothing(
    parts: list[Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger entry was not written yet: it is linked again, over a name of the same file."""

    class Kill(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.store.ledger.Ledger.write", kill)
        with pytest.raises(Kill):
            merge_parts(parts, tmp_path / "m", link=True)
    merge_parts(parts, tmp_path / "m", link=True)
    without_leftovers(tmp_path / "m")
    assert store_files(tmp_path / "m") == store_files(made / "whole")


def test_a_part_alone_is_no_store_to_train_on(parts: list[Path]) -> None:
    with pytest.raises(StoreError, match=r"is part 1/3 of a store.*g2l merge"):
        choose_teachers(Store(parts[0]), None, None)


def test_a_stopped_merge_continues(parts: list[Path], made: Path, tmp_path: Path) -> None:
    def stop_after_two(_: int, seen: list[int] = []) -> None:  # noqa: B006  (it counts)
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_parts(parts, tmp_path / "m", link=True, step=stop_after_two)
    merged = merge_parts(parts, tmp_path / "m", link=True)
    assert merged.num_before == 2
    assert store_files(tmp_path / "m") == store_files(made / "whole")


def change(folder: Path, **attributes: Any) -> None:
    """Change what a store says of itself."""
    path = folder / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["g2l"] |= attributes
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("lost", [False, True])
def test_a_file_that_is_damaged_since_is_brought_once_more(
    parts: list[Path], made: Path, tmp_path: Path, lost: bool
) -> None:
    """A merge that is run again looks at what was merged before, by whose word the parts are deleted."""
    merge_parts(parts, tmp_path / "m", link=False)
    damaged = next(
        path for path in (tmp_path / "m" / "status").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    data = damaged.read_bytes()
    damaged.unlink() if lost else damaged.write_bytes(b"gone" + data[4:])
    again = merge_parts(parts, tmp_path / "m", link=False)
    assert (again.num_before, again.num_linked, again.num_copied) == (again.teacher.num_shards, 0, 1)
    assert store_files(tmp_path / "m") == store_files(made / "whole")
    assert merge_parts(parts, tmp_path / "m", link=False).num_copied == 0


def test_a_part_is_no_place_for_the_merged_store(parts: list[Path]) -> None:
    before = store_files(parts[0])
    with pytest.raises(StoreError, match=r"is one of the parts\. Choose another --out"):
        merge_parts(parts, parts[0].parent / "." / parts[0].name, link=True)
    assert store_files(parts[0]) == before


def test_what_is_not_all_parts_is_refused(parts: list[Path], made: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    with pytest.raises(StoreError, match=r"of 3 parts some are missing: 1, 3\."):
        merge_parts(parts[1:2], out, link=True)
    twice = shutil.copytree(parts[0], tmp_path / "again")
    with pytest.raises(StoreError, match="are both part 1/3"):
        merge_parts([*parts, twice], out, link=True)
    with pytest.raises(StoreError, match="whole is not a part of a store"):
        merge_parts([*parts, made / "whole"], out, link=True)
    change(twice, part=[1, 4])
    with pytest.raises(StoreError, match="not parts of one division"):
        merge_parts([*parts[1:], twice], out, link=True)
    (parts[2] / "shards" / "4.json").unlink()
    with pytest.raises(StoreError, match=r"part-3 is not finished: 1 of its 2 shards .* --part 3/3 again"):
        merge_parts(parts, out, link=True)
    assert not out.exists()


@pytest.mark.slow
def test_parts_of_other_inputs_are_refused(parts: list[Path], planned: Plan, tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "m"
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    extract(planned, tmp_path / "of-other", other, rows_per_shard=4, part="3/3")
    with pytest.raises(StoreError, match=r"teacher\.weights_sha256"):
        merge_parts([*parts[:2], tmp_path / "of-other"], out, link=True)
    extract(planned, tmp_path / "jpeg", weights, rows_per_shard=4, part="3/3", pixels="jpeg", batch_size=2)
    with pytest.raises(StoreError, match=r"settings.batch_size: 4 -> 2\n  settings.pixels"):
        merge_parts([*parts[:2], tmp_path / "jpeg"], out, link=True)
    another = plan_cohort(write_cohort(tmp_path / "slides"), seed=1)
    extract(another, tmp_path / "another", weights, rows_per_shard=4, part="3/3")
    with pytest.raises(StoreError, match="plan_hash"):
        merge_parts([*parts[:2], tmp_path / "another"], out, link=True)
    assert not out.exists()


@pytest.mark.parametrize("name", ["embedding", "pixels", "status"])
def test_a_damaged_shard_is_not_merged(parts: list[Path], tmp_path: Path, name: str) -> None:
    file = next(path for path in sorted((parts[1] / name / "c").rglob("*")) if path.is_file())
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=f"part-2/{name}/.* its bytes have changed"):
        merge_parts(parts, tmp_path / "m", link=True)
    file.unlink()
    with pytest.raises(StoreError, match="the shard file is missing"):
        merge_parts(parts, tmp_path / "m", link=False)
    assert not (tmp_path / "m" / name / "c" / "2").exists() or not any(
        path.is_file() for path in (tmp_path / "m" / name / "c" / "2").rglob("*")
    )


def test_a_ledger_entry_of_other_files_is_refused(parts: list[Path], tmp_path: Path) -> None:
    path = parts[0] / "shards" / "1.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"rows": [0, 4]}))
    with pytest.raises(StoreError, match="not of this shard's rows"):
        merge_parts(parts, tmp_path / "m", link=True)
    entry["files"]["../../elsewhere"] = next(iter(entry["files"].values()))
    path.write_text(json.dumps(entry))
    with pytest.raises(StoreError, match="not of this shard's rows and files"):
        merge_parts(parts, tmp_path / "m", link=True)


def test_what_is_in_use_or_something_else_is_refused(parts: list[Path], made: Path, tmp_path: Path) -> None:
    with exclusive(parts[1], "g2l extract-teacher"), pytest.raises(BusyError, match="part-2 is in use"):
        merge_parts(parts, tmp_path / "m", link=True)
    with pytest.raises(StoreError, match="part-1 is part 1/3"):
        merge_parts([*parts[1:], made / "part-1"], parts[0], link=True)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "file").write_text("mine")
    with pytest.raises(StoreError, match="is not a store; nothing is overwritten"):
        merge_parts(parts, tmp_path / "m", link=True)


def test_a_store_with_another_shard_is_not_continued(parts: list[Path], made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made / "whole", tmp_path / "m")
    path = out / "shards" / "2.json"
    entry = json.loads(path.read_text())
    next(iter(entry["files"].values()))["sha256"] = "0" * 64
    path.write_text(json.dumps(entry))
    with pytest.raises(StoreError, match="has another shard 2 than"):
        merge_parts(parts, out, link=True)


def test_notes_on_slides_come_together(parts: list[Path], tmp_path: Path) -> None:
    for number, part in enumerate(parts):
        (part / CHANGED_FILE).write_text(json.dumps({f"{number}" * 64: f"s{number}.svs"}))
        crashing = {"slides": [{"path": f"/s{number}.svs", "reason": "it ends the process"}]}
        (part / "crashing-slides.json").write_text(json.dumps(crashing))
    merge_parts(parts, tmp_path / "m", link=True)
    assert list(read_changed(tmp_path / "m").values()) == ["s0.svs", "s1.svs", "s2.svs"]
    listed = json.loads((tmp_path / "m" / "crashing-slides.json").read_text())["slides"]
    assert [slide["path"] for slide in listed] == ["/s0.svs", "/s1.svs", "/s2.svs"]


def test_failed_rows_are_listed(planned: Plan, tmp_path: Path, weights: Path, made: Path) -> None:
    """One slide is gone at the site that does the second part."""
    moved = shutil.copytree(planned.slides_root, tmp_path / "slides")
    (moved / "s0.svs").unlink()
    parts = [made / "part-1"]
    for number, root in ((2, moved), (3, planned.slides_root)):
        folder, part = tmp_path / str(number), f"{number}/{COUNT}"
        extract(planned, folder, weights, rows_per_shard=4, part=part, slides_root=root)
        parts.append(folder)
    merged = merge_parts(parts, tmp_path / "m", link=True)
    assert merged.teacher.ledger.status_counts()["NO_SLIDE"] == 4
    assert len((tmp_path / "m" / "failures.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("relative", [False, True])
def test_files_that_are_links_by_name_are_merged_as_files(
    parts: list[Path], made: Path, tmp_path: Path, relative: bool
) -> None:
    """Shard files may be links into a store of objects (git-annex, DVC), which goes with the parts."""
    objects = tmp_path / "objects"
    objects.mkdir()
    for number, file in enumerate(sorted(path for path in (parts[0] / "embedding" / "c").rglob("*") if path.is_file())):
        kept = file.rename(objects / str(number))
        file.symlink_to(os.path.relpath(kept, file.parent) if relative else kept)
    merge_parts(parts, tmp_path / "elsewhere" / "m", link=True)
    shutil.rmtree(objects)
    assert store_files(tmp_path / "elsewhere" / "m") == store_files(made / "whole")
    assert not any(path.is_symlink() for path in (tmp_path / "elsewhere").rglob("*"))


def test_linking_leaves_the_rights_of_the_parts_files(parts: list[Path], tmp_path: Path) -> None:
    """They may be for a group, or read-only on purpose, whatever the umask of whoever merges."""
    files = [path for part in parts for path in part.glob("*/c/**/*") if path.is_file()]
    for path in files:
        path.chmod(0o444)
    before = os.umask(0o077)
    try:
        merge_parts(parts, tmp_path / "m", link=True)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}


@pytest.mark.parametrize("kind", ["pipe", "larger"])
def test_what_is_no_shard_file_is_refused_before_it_is_copied(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A link to a device would have no end."""
    file = next(path for path in sorted((parts[1] / "status" / "c").rglob("*")) if path.is_file())
    if kind == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        os.truncate(file, 1 << 30)
    copy = shutil.copyfile

    def copy_others(source: Path, target: Path) -> None:
        assert source != file
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_others)
    with pytest.raises(StoreError, match=r"part-2/status/.*: [0-9]+ bytes, [0-9]+ were written"):
        merge_parts(parts, tmp_path / "m", link=False)


def test_versions_that_are_not_known_hinder_nothing(parts: list[Path], made: Path, tmp_path: Path) -> None:
    path = parts[0] / "zarr.json"
    metadata = json.loads(path.read_text())
    del metadata["attributes"]["g2l"]["versions"]
    path.write_text(json.dumps(metadata))
    merge_parts(parts, tmp_path / "m", link=True)
    assert Store(tmp_path / "m").first.content_hash() == Store(made / "whole").first.content_hash()


def test_one_plan_is_read_however_many_parts_there_are(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take seconds and megabytes for ten thousand slides."""
    read: list[str] = []

    def counted(folder: Path, plan_hash: str, place: str = "") -> Plan:
        read.append(place)
        return read_stored_plan(folder, plan_hash, place)

    monkeypatch.setattr("pipeline.store.store.read_stored_plan", counted)
    merge_parts(parts, tmp_path / "m", link=True)
    assert read == [str(parts[0] / "plan")]


def test_another_number_of_rows_is_refused(parts: list[Path], tmp_path: Path) -> None:
    change(parts[1], rows=21)
    with pytest.raises(StoreError, match="rows: 24 -> 21"):
        merge_parts(parts, tmp_path / "m", link=True)


def test_parts_are_held_one_after_the_other(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array may have a thousand tasks, and a process may often open no more than 1,024 files."""
    held: list[Path] = []

    @contextmanager
    def counted(output: Path, what: str) -> Iterator[None]:
        assert len(held) < 2, held  # the merged store, and a part
        held.append(output)
        with exclusive(output, what):
            yield
        held.remove(output)

    monkeypatch.setattr("pipeline.store.parts.merge.exclusive", counted)
    merge_parts(parts, tmp_path / "m", link=True)


def test_a_part_that_is_taken_up_again_meanwhile_is_not_merged(parts: list[Path], tmp_path: Path) -> None:
    """`--retry-failures` withdraws shards, and does them again."""

    def take_up(_: int) -> None:
        (parts[2] / "shards" / "5.json").unlink(missing_ok=True)

    with pytest.raises(StoreError, match="part-3 is not finished"):
        merge_parts(parts, tmp_path / "m", link=True, step=take_up)
    with exclusive(parts[0], "g2l extract-teacher"), pytest.raises(BusyError, match="part-1 is in use"):
        merge_parts(parts, tmp_path / "n", link=True)
    assert not (tmp_path / "n").exists()


def test_copies_that_will_hardly_fit_are_warned_of_once_and_links_are_not(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    num_bytes = sum(Store(part).first.ledger.num_bytes() for part in parts)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes - 1))
    merge_parts(parts, tmp_path / "linked", link=True)
    assert "warning" not in capsys.readouterr().err
    merge_parts(parts, tmp_path / "m", link=False)
    warning = f"warning: shard files of {format_bytes(num_bytes)} are copied, and {tmp_path / 'm'} has"
    assert capsys.readouterr().err.count(warning) == 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=num_bytes))
    merge_parts(parts, tmp_path / "n", link=False)
    assert "warning" not in capsys.readouterr().err


def test_a_full_disk_says_what_is_safe_and_the_same_command_continues(
    parts: list[Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, copied = shutil.copyfile, list[Path]()

    def copy_until_full(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_until_full)
        with pytest.raises(StoreError, match=r"cannot write to .*/m: No space .* 2 of 6 shards are merged and safe"):
            merge_parts(parts, tmp_path / "m", link=False)
    assert merge_parts(parts, tmp_path / "m", link=False).num_before == 2
    assert store_files(tmp_path / "m") == store_files(made / "whole")
    without_leftovers(tmp_path / "m")


def test_a_place_within_a_part_is_refused(parts: list[Path]) -> None:
    before = store_files(parts[1])
    with pytest.raises(StoreError, match=r"new lies in the part .*part-2, and would be deleted with it"):
        merge_parts(parts, parts[1] / "new", link=True)
    assert store_files(parts[1]) == before
