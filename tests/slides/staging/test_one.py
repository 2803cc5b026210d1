"""Copies of single slides in a bucket, which is a folder here: there while they are used, and gone after."""

import os
from pathlib import Path
from unittest import mock

import pytest
from support.slides import make_slide
from support.staging import staged_files

from pipeline.base.errors import SlideError
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.second_look import crash_of
from pipeline.slides.reader import Slide
from pipeline.slides.staging import one
from pipeline.slides.staging.one import LastCopy, copy_of_slide, left_open, with_own_copy


@pytest.fixture
def slides(tmp_path: Path) -> list[ObjectPath]:
    (tmp_path / "there").mkdir()
    files = [make_slide(tmp_path / "there" / f"{n}.svs", width=64, height=64, downsamples=(1,), seed=n) for n in (0, 1)]
    return [ObjectPath(f"file://{file}") for file in files]


@pytest.fixture
def stage(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "stage")


def staged(stage: StageFolder) -> list[str]:
    """Names of the files of slides that lie in the folder."""
    return sorted(os.path.basename(path) for path in staged_files(stage.folder))


def quiet(note: str) -> None:
    """Tells nobody."""


def test_a_copy_is_there_while_the_block_runs(slides: list[ObjectPath], stage: StageFolder, tmp_path: Path) -> None:
    with copy_of_slide(slides[0], stage, tell=quiet) as copy:
        assert copy is not None
        assert copy.read_bytes() == (tmp_path / "there" / "0.svs").read_bytes()
        assert Slide(slides[0], copy=copy).info.size_l0_px == (64, 64)
    assert staged(stage) == []
    with copy_of_slide(tmp_path / "a.svs", stage, tell=quiet) as copy:
        assert copy is None
    with (
        pytest.raises(SlideError, match="no such object"),
        copy_of_slide(ObjectPath(f"file://{tmp_path}/c.svs"), stage, tell=quiet),
    ):
        pass
    with copy_of_slide(slides[0], None, tell=quiet) as copy, pytest.raises(SlideError, match=r"0\.svs: .*--stage-dir"):
        Slide(slides[0], copy=copy)


def test_the_last_copy_stays_until_another_slide_is_used(
    slides: list[ObjectPath], stage: StageFolder, tmp_path: Path
) -> None:
    closed: list[Path] = []
    with LastCopy(stage, tell=quiet) as copies:
        for number in (0, 0, 1, 1):
            with copies.use(slides[number], closed.append) as copy:
                assert copy is not None
                assert staged(stage) == [f"{number}.svs"]
        with copies.use(tmp_path / "a.svs", left_open) as copy:
            assert (copy, staged(stage)) == (None, ["1.svs"])
        gone_once = tmp_path / "c.svs"
        gone = ObjectPath(f"file://{gone_once}")
        for _ in range(2):
            with pytest.raises(SlideError, match="no such object"), copies.use(gone, closed.append):
                pass
            gone_once.touch()
    assert (closed, staged(stage)) == (slides, [])


def end_if(path: Path, is_crashing: bool, copy: Path | None = None) -> None:
    """Ends the process as a crash would, if it has a copy that is there."""
    if is_crashing and copy is not None and copy.is_file():
        import ctypes  # in the child only

        ctypes.string_at(0)


@pytest.mark.slow
def test_a_child_reads_a_copy_that_it_makes_and_what_a_crash_leaves_goes(
    slides: list[ObjectPath], stage: StageFolder, tmp_path: Path
) -> None:
    work = (end_if, (slides[0], True))
    assert with_own_copy(tmp_path / "a.svs", stage, work) == work
    with mock.patch.object(one, "STEP_SECONDS", 0.01):
        assert "SIGSEGV" in crash_of(with_own_copy(slides[0], stage, work))
        assert crash_of(with_own_copy(slides[0], stage, (end_if, (slides[0], False)))) == ""
    assert staged(stage) == []
