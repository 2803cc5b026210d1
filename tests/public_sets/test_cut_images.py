"""Images that are cut out of larger files: all or none are there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pixels import noise

from pipeline.public_sets.cut_images import write_pictures


def test_pictures_are_written_once_without_loss(tmp_path: Path) -> None:
    pixels = noise(5, 7, 3)
    assert write_pictures(tmp_path / "images", lambda: [("a/b/1.png", pixels), ("2.png", pixels)])
    with Image.open(tmp_path / "images/a/b/1.png") as image:
        assert np.array_equal(np.asarray(image), pixels)

    def never() -> list[tuple[str, np.ndarray]]:
        raise AssertionError

    assert not write_pictures(tmp_path / "images", never)


def test_after_a_failure_nothing_is_there(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield "1.png", noise(4, 4, 3)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pictures(tmp_path / "images", broken)
    assert list(tmp_path.iterdir()) == []
