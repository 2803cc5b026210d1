"""Image files as patches: what can be used, what is told of the rest, and how an image becomes an encoder's input."""

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import child_environment
from support.failing import failing
from support.limits import few_files_left, little_memory_left
from support.pixels import noise

from pipeline.base.errors import BenchmarkError, LimitError
from pipeline.evaluate import images
from pipeline.evaluate.images import read_image, scan_images
from pipeline.student.resolve import NamedModel


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_every_bad_image_is_named_with_its_reason(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", noise(16, 16, 3))
    empty, text, short = tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "short.png"
    empty.write_bytes(b"")
    text.write_text("no image")
    short.write_bytes(good.read_bytes()[:100])
    deep = tmp_path / "deep.tif"
    Image.fromarray(np.full((16, 16), 40000, np.uint16)).save(deep)
    paths = [good, empty, text, short, deep, tmp_path / "absent.png", tmp_path]
    scanned = scan_images(paths, workers=2)
    assert scanned.usable().tolist() == [0]
    assert scanned.problems[1] == "the file is empty"
    assert "not readable as an image" in scanned.problems[2]
    assert "not readable as an image" in scanned.problems[3]
    assert "not of 8 bits" in scanned.problems[4]
    assert "No such file" in scanned.problems[5]
    assert "directory" in scanned.problems[6]
    assert scanned.sizes == {(16, 16): 1}
    assert scanned.sha256[0] == hashlib.sha256(good.read_bytes()).hexdigest()


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", noise(24, 24, 3))
    monkeypatch.setattr(images, "MOST_IMAGE_BYTES", 100)
    scanned = scan_images([path], workers=1)
    assert "the limit is 100 bytes" in scanned.problems[0]
    assert scanned.sha256 == [""]
    with pytest.raises(BenchmarkError, match=r"a\.png: could be read before, but not now \(.*the limit is 100 bytes"):
        read_image(path, np.empty((24, 24, 3), np.uint8))


def test_the_key_changes_with_bytes_order_and_size(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.png", noise(8, 8, 3)), save(tmp_path / "b.png", noise(8, 9, 3))
    key = scan_images([a, b], 1).data_key(32)
    assert key == scan_images([a, b], 2).data_key(32)
    assert key != scan_images([b, a], 1).data_key(32)
    assert key != scan_images([a, b], 1).data_key(64)
    save(b, noise(8, 10, 3))
    assert key != scan_images([a, b], 1).data_key(32)


def test_an_image_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = noise(24, 24, 3)
    out = np.empty_like(pixels)
    read_image(save(tmp_path / "a.png", pixels), out)
    assert (out == pixels).all()


def test_the_central_square_is_resampled_once_with_antialiasing(tmp_path: Path) -> None:
    pixels = noise(48, 80, 3)
    out = np.empty((16, 16, 3), np.uint8)
    read_image(save(tmp_path / "a.png", pixels), out)
    expected = Image.fromarray(pixels[:, 16:64]).resize((16, 16), Image.Resampling.BICUBIC)
    assert (out == np.asarray(expected)).all()
    read_image(save(tmp_path / "flat.png", np.full((5, 7, 3), 77, np.uint8)), out)
    assert (out == 77).all()


def test_grey_palettes_and_transparency_become_rgb_on_white(tmp_path: Path) -> None:
    grey = noise(12, 12)
    out = np.empty((12, 12, 3), np.uint8)
    read_image(save(tmp_path / "grey.png", grey), out)
    assert (out == grey[..., None]).all()
    rgba = np.zeros((12, 12, 4), np.uint8)
    rgba[:6, :, 3] = 255
    read_image(save(tmp_path / "clear.png", rgba), out)
    assert (out[:6] == 0).all()
    assert (out[6:] == 255).all()
    palette = Image.fromarray(noise(12, 12, 3)).quantize(8)
    palette.save(tmp_path / "palette.png")
    read_image(tmp_path / "palette.png", out)
    assert (out == np.asarray(palette.convert("RGB"))).all()


def test_an_image_that_vanished_after_the_scan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"gone\.png: could be read before"):
        read_image(tmp_path / "gone.png", np.empty((4, 4, 3), np.uint8))


def test_pixels_tell_copies_and_plain_images(tmp_path: Path) -> None:
    picture = noise(8, 8, 3)
    plain, grey = np.full((8, 8, 3), (9, 8, 7), np.uint8), np.full((8, 8), 5, np.uint8)
    turned = np.ascontiguousarray(picture.reshape(4, 16, 3))
    named = {
        "a.png": picture,
        "b.bmp": picture,
        "c.png": turned,
        "d.png": plain,
        "e.png": grey,
        "f.png": noise(8, 9, 3),
    }
    paths = [save(tmp_path / name, pixels) for name, pixels in named.items()]
    (tmp_path / "g.png").write_bytes(b"no image")
    scanned = scan_images([*paths, tmp_path / "g.png"], 2)
    assert scanned.pixels[0] == scanned.pixels[1] != scanned.pixels[2]
    assert len(set(scanned.pixels)) == 6
    assert scanned.pixels[6] == ""
    assert scanned.plain == {3, 4}


SCAN = """
import sys
from pathlib import Path
from pipeline.evaluate.images import scan_images
print(scan_images([Path(name) for name in sys.argv[1:]], 2).problems)
"""


@pytest.mark.slow
def test_pillows_warnings_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """They name no image, and two threads that read at once may undo what hides them for a block."""
    paths = [tmp_path / f"{i}.tif" for i in range(4)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path, description="a text of a tag")
        data = bytearray(path.read_bytes())
        tag = data.index(struct.pack("<HH", 270, 2))  # ImageDescription, ASCII
        data[tag + 4 : tag + 8] = struct.pack("<I", 4_000_000_000)
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", SCAN, *paths], capture_output=True, text=True, env=child_environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert "Tag data" not in done.stdout  # whether it can be read for all that depends on Pillow's version


def test_students_of_other_decoding_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [NamedModel(name, "resnet18", "scratch", 64, student=Path(name)) for name in ("full", "half")]
    monkeypatch.setattr(NamedModel, "decode", property(lambda model: model.label))
    models.append(NamedModel("other", "resnet18", "scratch", 64))  # no student: nobody knows
    assert [note.split(" (")[0] for note in images.decode_notes(models)] == [
        "half was trained on tiles decoded at half their size"
    ]
    assert [note.split(" (")[0] for note in images.decode_notes(models, "half")] == [
        "full was trained on tiles decoded at full size"
    ]


def test_without_descriptors_no_image_is_called_unreadable(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with few_files_left(), pytest.raises(LimitError, match=r"ulimit -n"):
        scan_images([tmp_path / "a.png"], workers=1)


def test_without_memory_no_image_is_called_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_decode", failing(MemoryError()))
    with little_memory_left(), pytest.raises(LimitError, match=r"ulimit -v"):
        images._scan(tmp_path / "a.png")
    assert "more memory than there is" in images._scan(tmp_path / "a.png").problem
