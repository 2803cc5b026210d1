"""Copies of a picture in a published set, against a plain comparison of all pairs; and evaluate's own check."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.benchmarks import look
from support.pixels import noise
from support.public_sets import write_csv

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.copies import without_leaks


def rows(folder: Path, members: list[tuple[int, str, str, str]]) -> list[dict[str, str]]:
    """Members by (picture, label, case, split)."""
    made = []
    for index, (seed, label, case, split) in enumerate(members):
        pixels = np.full((8, 8, 3), 7, np.uint8) if seed < 0 else noise(8, 8, 3, seed=seed)
        Image.fromarray(pixels).save(folder / f"{index}.png", compress_level=index % 9)
        made.append({"path": f"{index}.png", "label": label, "case_id": case, "split": split})
    return made


def test_what_stays_and_what_goes(tmp_path: Path) -> None:
    members = [
        (1, "x", "a", "train"),
        (1, "x", "b", "test"),  # of copies in two splits the test's stays
        (2, "x", "a", "train"),
        (2, "y", "a", "train"),  # two labels: neither stays
        (3, "y", "c", "test"),
        (3, "y", "c", "test"),  # of one case and split: both stay
        (4, "x", "a", "train"),
        (4, "x", "d", "train"),  # of two cases the first stays
        (-1, "x", "a", "train"),
        (-1, "y", "b", "test"),  # of one colour: both stay
    ]
    kept, left_out = without_leaks(rows(tmp_path, members), tmp_path, 2)
    assert [row["path"] for row in kept] == ["1.png", "4.png", "5.png", "6.png", "8.png", "9.png"]
    assert [each.what for each in left_out] == ["0.png", "2.png", "3.png", "7.png"]
    assert all(each.by_rule for each in left_out)
    assert "under another label (2.png, 3.png)" in left_out[1].why


def test_evaluate_takes_what_is_left_and_not_what_was_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = [(int(rng.integers(80)), "xy"[int(rng.integers(2))], f"c{i % 12}", "") for i in range(60)]
    made = rows(tmp_path, members)
    header = ("path", "label", "case_id")
    write_csv(tmp_path / "all.csv", header, [[row[name] for name in header] for row in made])
    with pytest.raises(BenchmarkError, match="pixel for pixel"):
        look(patches=tmp_path / "all.csv")
    kept, left_out = without_leaks(made, tmp_path, 2)
    assert len(kept) + len(left_out) == 60
    assert len(kept) > 12
    write_csv(tmp_path / "kept.csv", header, [[row[name] for name in header] for row in kept])
    look(patches=tmp_path / "kept.csv", folds=2)


def test_an_unreadable_image_is_left_to_evaluate(tmp_path: Path) -> None:
    made = rows(tmp_path, [(1, "x", "a", "train"), (2, "y", "b", "test")])
    (tmp_path / "1.png").write_bytes(b"no image")
    kept, left_out = without_leaks(made, tmp_path, 2)
    assert (len(kept), left_out) == (2, ())
