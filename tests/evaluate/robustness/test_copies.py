"""Copies of a picture on several slides are told of a robustness set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.benchmarks import look
from support.pixels import noise

from pipeline.evaluate.images import ScannedImages, scan_images
from pipeline.evaluate.robustness.benchmark import RobustnessBenchmark
from pipeline.evaluate.robustness.copies import note_on_copies
from pipeline.evaluate.robustness.data import IndexRows, RobustnessSet, read_robustness_set


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ({5: 0, 9: 0, 3: 2}, "3 patches are copies, pixel for pixel, of one on another slide"),  # 2, 3: of one slide
        ({1: 0, 3: 2}, ""),
        ({0: -1, 4: -1, 8: -1}, ""),  # blank
    ],
)
def test_copies_on_other_slides_are_told_of_a_robustness_set(
    tmp_path: Path, pictures: dict[int, int], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight slides of two patches, two classes by two centres."""
    rows = ["path,slide_id,patch_id,biological_class,medical_center"]
    for i in range(16):
        code = pictures.get(i, i)
        picture = np.full((8, 8, 3), 250, np.uint8) if code < 0 else noise(8, 8, 3, seed=code)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,S{i // 2},{i},{'xy'[i % 2]},{'mn'[i // 2 % 2]}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    (benchmark,) = look(robustness=path)
    assert isinstance(benchmark, RobustnessBenchmark)
    notes = benchmark.robustness_set.notes
    assert (words in " ".join(notes)) if words else notes == ()
    assert words in capsys.readouterr().err


def test_copies_are_looked_for_in_all_pictures_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture was compared with all others: 20,000 took 10 s, 100,000 minutes."""
    pixels = [f"{i:064x}" for i in range(300)]
    pixels[7] = pixels[250]
    slides = np.array([f"s{i // 10}" for i in range(300)])
    rows = IndexRows(np.arange(300), slides, slides, slides, None)
    found = RobustnessSet(Path("x.csv"), [Path("x.png")] * 300, rows, None, 0)
    calls = []
    unique = np.unique
    monkeypatch.setattr(np, "unique", lambda *arguments, **more: calls.append(1) or unique(*arguments, **more))
    (note,) = note_on_copies(found, ScannedImages(pixels, {}, {}, pixels, frozenset()))
    assert note.startswith("2 patches are copies")
    assert len(calls) < 10


def test_a_set_of_pairs_only_has_no_copies_to_tell(tmp_path: Path) -> None:
    """The same picture on all slides; there is no index that it could move."""
    rows = ["path,slide_id,patch_id,scanner"]
    for i in range(4):
        Image.fromarray(noise(8, 8, 3, seed=0)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,S{i // 2},{i % 2},{'PQ'[i // 2]}")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    found = read_robustness_set(path)
    assert note_on_copies(found, scan_images(found.paths, 1)) == []
