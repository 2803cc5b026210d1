"""Copies of patches: those that give an answer away are an error, the others are counted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.labelled_patches import NUM, cohort, options, patches_of, write_patches
from support.pixels import noise

from pipeline.base.errors import G2LError
from pipeline.evaluate.patch_benchmark.section import patch_bench


def test_copies_in_two_cases_are_an_error_with_pairs(tmp_path: Path) -> None:
    path = write_patches(tmp_path, *cohort({4: 0, 12: 8}))
    with pytest.raises(G2LError) as caught:
        patches_of(path)
    message = str(caught.value)
    assert "2 patches are copies, pixel for pixel, of another with a different case_id" in message
    assert f"{tmp_path / '0.png'} (case_id 'C0') and {tmp_path / '4.png'} (case_id 'C2')" in message
    assert f"{tmp_path / '8.png'} (case_id 'C4') and {tmp_path / '12.png'} (case_id 'C6')" in message
    assert "give both the same case_id" in message


def test_a_link_and_another_compression_are_copies(tmp_path: Path) -> None:
    path = write_patches(tmp_path, *cohort())
    (tmp_path / "4.png").unlink()
    (tmp_path / "4.png").symlink_to("0.png")
    with pytest.raises(G2LError, match="1 patch is a copy"):
        patches_of(path)
    (tmp_path / "4.png").unlink()
    Image.fromarray(noise(8, 8, 3, seed=0)).save(tmp_path / "4.png", format="BMP")
    with pytest.raises(G2LError, match="1 patch is a copy"):
        patches_of(path)
    changed = noise(8, 8, 3, seed=0)
    changed[3, 3, 1] ^= 1
    Image.fromarray(changed).save(tmp_path / "4.png")
    assert len(patches_of(path)) == NUM


def test_copies_under_two_labels_or_in_two_splits_are_an_error(tmp_path: Path) -> None:
    pictures, columns = cohort({1: 0})
    labels = columns["label"]
    path = write_patches(tmp_path, pictures, columns | {"label": ["y", *labels[1:]]})
    with pytest.raises(G2LError, match=r"different label:\n.*0\.png \(label 'y'\) and .*1\.png \(label 'x'\)"):
        patches_of(path)
    columns = {"label": labels, "split": ["Train"] + ["TEST"] * 11 + ["train"] * 12}
    path = write_patches(tmp_path, pictures, columns)
    with pytest.raises(G2LError, match=r"different split:\n.*\(split 'train'\) and .*\(split 'test'\)"):
        patches_of(path)


def test_copies_within_a_case_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = patches_of(write_patches(tmp_path, *cohort({1: 0, 3: 2})))
    (note,) = found.notes()
    assert note.startswith(
        "2 of 24 patches are copies, pixel for pixel, of another of the same class and of the same case"
    )
    assert note in capsys.readouterr().err


def test_copies_without_groups_stay_on_one_side(tmp_path: Path) -> None:
    pictures, columns = cohort({4: 0, 8: 0, 16: 12})
    found = patches_of(write_patches(tmp_path, pictures, {"label": columns["label"]}))
    assert any("3 of 24 patches are copies" in note and "kept on one side" in note for note in found.notes())
    bench = patch_bench(found, options())
    assert bench.resamples.num_groups == NUM - 3
    for rows in ([0, 4, 8], [12, 16]):
        assert len({int(bench.task.parts[row]) for row in rows}) == 1
    chosen = found.select(np.array([8, 4, 1]))
    assert len(set(chosen.groups_or_own().tolist())) == 2


def test_blank_patches_are_no_leak(tmp_path: Path) -> None:
    pictures, columns = cohort()
    blank = np.full((8, 8, 3), (250, 240, 250), np.uint8)
    for i in (0, 3, 4, 9):
        pictures[i] = blank
    found = patches_of(write_patches(tmp_path, pictures, columns))
    (note,) = found.notes()
    assert note.startswith("3 of 24 patches are of one colour throughout")
    alone = patches_of(write_patches(tmp_path, pictures, {"label": columns["label"]}))
    assert len(np.unique(alone.groups_or_own())) == NUM  # blank patches of all cases are not one group
