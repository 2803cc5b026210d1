"""Copies of a picture on several slides are told of a robustness set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.labelled_patches import config, noise

from pipeline.evaluate.robustness.benchmark import RobustnessBenchmark
from stages.evaluate import look_at_inputs


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
        picture = np.full((8, 8, 3), 250, np.uint8) if code < 0 else noise(code)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,S{i // 2},{i},{'xy'[i % 2]},{'mn'[i // 2 % 2]}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    (benchmark,) = look_at_inputs(config(robustness=path))
    assert isinstance(benchmark, RobustnessBenchmark)
    notes = benchmark.robustness_set.notes
    assert (words in " ".join(notes)) if words else notes == ()
    assert words in capsys.readouterr().err
