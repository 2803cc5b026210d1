"""Slides that are kept open: each is opened once, is the planned one, and holds up no other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.slides as sf

from pipeline.base.errors import SlideError
from pipeline.slides import pool as pool_module
from pipeline.slides import reader
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.identity import SlideIdentity
from pipeline.slides.pool import SlidePool
from pipeline.slides.reader import Slide

PLANNED = PatchGeometry(224, 0.5, 0.5, 0, 1.0)


@pytest.fixture(scope="module")
def tissue_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    return sf.make_slide(folder / "a.svs", width=1500, height=1200, mpp=0.5, downsamples=(1, 4))


def test_pool(tissue_path: Path, tmp_path: Path) -> None:
    pool, planned = SlidePool(tell=print, capacity=2), Slide(tissue_path).identity()
    first = pool.open(tissue_path, None, planned, PLANNED)
    assert pool.open(tissue_path, None, planned, PLANNED) is first
    others = [sf.make_slide(tmp_path / f"{i}.svs", width=300, height=300, mpp=0.5, seed=i) for i in range(2)]
    for other in others:
        pool.open(other, None, Slide(other).identity(), PLANNED)
    again = pool.open(tissue_path, None, planned, PLANNED)
    assert again is not first  # it dropped out
    geometry = first.geometry(224, 0.5)
    np.testing.assert_array_equal(first.read_patch(500, 500, geometry), again.read_patch(500, 500, geometry))


def test_pool_refuses_another_slide_at_once(tissue_path: Path, tmp_path: Path) -> None:
    path, planned = tmp_path / "a.svs", SlideIdentity("x", (1500, 1200))
    pool = SlidePool(tell=print)
    with pytest.raises(SlideError, match="no such slide"):
        pool.open(path, None, planned, PLANNED)
    path.write_bytes(tissue_path.read_bytes())
    with pytest.raises(SlideError, match="no such slide"):  # it failed in this run, and stays so
        pool.open(path, None, planned, PLANNED)
    for _ in range(2):
        with pytest.raises(SlideError, match=r"a\.svs: not the slide that was planned"):
            SlidePool(tell=print).open(path, None, planned, PLANNED)


def test_pool_names_the_slide_whatever_its_first_reading_raises(
    tissue_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool compares a level with OpenSlide's, also ahead of use in a thread that expects such errors alone."""

    def broken(*_: object) -> str:
        raise OverflowError("Python int too large to convert to C long")

    monkeypatch.setattr(reader.DirectReader, "note", broken)
    with pytest.raises(SlideError, match=r"\.svs: the slide cannot be used \(OverflowError: Python int"):
        SlidePool(tell=print).open(tissue_path, None, Slide(tissue_path).identity(), PLANNED)


def test_pool_opens_a_slide_once(tissue_path: Path) -> None:
    pool, planned = SlidePool(tell=print), Slide(tissue_path).identity()
    with ThreadPoolExecutor(8) as threads:
        slides = list(threads.map(lambda _: pool.open(tissue_path, None, planned, PLANNED), range(50)))
    assert len(set(map(id, slides))) == 1


def test_others_are_read_while_the_pool_opens_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [sf.make_slide(tmp_path / f"{i}.svs", width=300, height=300, mpp=0.5, seed=i) for i in range(2)]
    known = [Slide(path).identity() for path in paths]
    begun, go_on = threading.Event(), threading.Event()
    original = reader.read_info

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return original(*args, **options)

    pool = SlidePool(tell=print)
    first = pool.open(paths[0], None, known[0], PLANNED)
    monkeypatch.setattr(reader, "read_info", slow)
    with ThreadPoolExecutor(2) as threads:
        opening = [threads.submit(pool.open, paths[1], None, known[1], PLANNED) for _ in range(2)]
        assert begun.wait(30)
        assert pool.open(paths[0], None, known[0], PLANNED) is first
        assert not any(future.done() for future in opening)
        go_on.set()
        assert len({id(future.result()) for future in opening}) == 1


def test_what_is_no_slide_error_is_not_kept(tissue_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, pool = Slide(tissue_path).identity(), SlidePool(tell=print)
    with monkeypatch.context() as patched:
        patched.setattr(pool_module, "require_planned", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pool.open(tissue_path, None, planned, PLANNED)
    assert pool.open(tissue_path, None, planned, PLANNED).path == tissue_path
