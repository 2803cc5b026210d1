"""Images that are cut out of larger files: all or none are there."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pixels import noise

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.cut_images import CUT_FROM_FILE, write_pictures


def never() -> list[tuple[str, np.ndarray]]:
    raise AssertionError


def source(folder: Path, content: bytes = b"a", name: str = "x.h5") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_pictures_are_written_once_without_loss(tmp_path: Path) -> None:
    pixels, of = noise(5, 7, 3), [source(tmp_path)]
    assert write_pictures(tmp_path / "images", of, lambda: [("a/b/1.png", pixels), ("2.png", pixels)])
    with Image.open(tmp_path / "images/a/b/1.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert not write_pictures(tmp_path / "images", of, never)


def test_pictures_of_other_files_are_cut_anew(tmp_path: Path) -> None:
    first, out = source(tmp_path), tmp_path / "out"
    out.mkdir()
    write_pictures(out / "images", [first], lambda: [("1.png", noise(4, 4, 3)), ("2.png", noise(4, 4, 3))])
    status = first.stat()
    source(tmp_path, b"b")
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    other = source(tmp_path, b"b", "y.h5")
    for number, of in enumerate(([first], [first, other], [other])):
        assert write_pictures(out / "images", of, lambda: [("1.png", noise(4, 4, 3, seed=9))])
        assert not write_pictures(out / "images", of, never), number
        assert sorted(path.name for path in (out / "images").iterdir()) == ["1.png", CUT_FROM_FILE]
    os.utime(other, ns=(0, 0))
    assert write_pictures(out / "images", [other], lambda: [("1.png", noise(4, 4, 3))])
    assert [path.name for path in out.iterdir()] == ["images"]


def test_a_link_to_a_folder_elsewhere_stays(tmp_path: Path) -> None:
    of = [source(tmp_path)]
    (tmp_path / "large").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "large")
    for content in (b"a", b"b"):
        source(tmp_path, content)
        assert write_pictures(tmp_path / "images", of, lambda: [("1.png", noise(4, 4, 3))])
    assert (tmp_path / "images").is_symlink()
    assert (tmp_path / "large/1.png").is_file()


@pytest.mark.parametrize("record", [None, "[]", "{"])
def test_a_folder_that_does_not_say_what_it_is_of_stays_and_is_named(tmp_path: Path, record: str | None) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mine.png").write_bytes(b"")
    if record is not None:
        (tmp_path / "images" / CUT_FROM_FILE).write_text(record)
    with pytest.raises(BenchmarkError, match=f"{CUT_FROM_FILE}: does not say .*Delete {tmp_path}/images"):
        write_pictures(tmp_path / "images", [source(tmp_path)], never)
    assert (tmp_path / "images/mine.png").is_file()


def test_a_source_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"gone\.h5: cannot be read"):
        write_pictures(tmp_path / "images", [tmp_path / "gone.h5"], never)


def test_after_a_failure_nothing_is_there(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield "1.png", noise(4, 4, 3)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pictures(tmp_path / "images", [], broken)
    assert list(tmp_path.iterdir()) == []
