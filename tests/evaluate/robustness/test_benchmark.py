"""The robustness benchmark: what it sees of its inputs before anything is computed."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from support.benchmarks import look
from support.pixels import noise

from pipeline.base.errors import G2LError
from pipeline.evaluate.robustness.benchmark import RobustnessBenchmark
from pipeline.evaluate.robustness.options import RobustnessOptions


def test_a_k_that_is_too_large_is_seen_early(tmp_path: Path) -> None:
    rows = ["path,slide_id,patch_id,biological_class,medical_center,subset"]
    for subset, per_slide in (("one", 2), ("two", 1)):
        for slide in range(4):
            for patch in range(per_slide):
                name = f"{subset}{slide}{patch}"
                Image.fromarray(noise(8, 8, 3, seed=len(rows))).save(tmp_path / f"{name}.png")
                rows.append(f"{name}.png,{subset}{slide},{name},{'xy'[slide % 2]},{'mn'[slide // 2]},{subset}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    look(robustness=path, ri_k=3)
    with pytest.raises(G2LError, match="only 3 patches of other slides within subset 'two'; take a k of at most 3"):
        look(robustness=path, ri_k=4)


def test_images_without_which_k_is_too_large_are_named(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    look(robustness=path, ri_k=14)
    (tmp_path / "05.png").write_bytes(b"no image")
    with pytest.raises(G2LError, match=r"take a k of at most 13(.|\n)*Left out before:\n.*05\.png: "):
        look(robustness=path, ri_k=14)


def write_set(folder: Path) -> Path:
    """Two classes by two centres, two slides each of two patches."""
    rows = ["path,slide_id,patch_id,biological_class,medical_center"]
    for i in range(16):
        Image.fromarray(noise(8, 8, 3, seed=i)).save(folder / f"{i:02}.png")
        rows.append(f"{i:02}.png,S{i // 2},{i},{'xy'[i % 2]},{'mn'[i // 2 % 2]}")
    path = folder / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_table_asks_for_it() -> None:
    assert RobustnessBenchmark.is_wanted(RobustnessOptions(robustness=Path("r.csv")))
    assert not RobustnessBenchmark.is_wanted(RobustnessOptions())


def test_images_that_cannot_be_used_are_left_out_by_name(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    (tmp_path / "05.png").write_bytes(b"no image")
    benchmark = RobustnessBenchmark.look(RobustnessOptions(robustness=path, resamples=100), workers=1)
    assert [image.name for image in benchmark.robustness_set.paths] == [f"{i:02}.png" for i in range(16) if i != 5]
    assert [exclusion.what for exclusion in benchmark.images.exclusions] == [str(tmp_path / "05.png")]
    assert benchmark.notes == (f"left out of {path}: 1 of 16 images; the report lists them",)
    source = benchmark.patch_source()
    assert source is not None
    patch = np.zeros((8, 8, 3), np.uint8)
    source.read(source.rows[5], patch)
    assert np.array_equal(patch, noise(8, 8, 3, seed=6))  # the rows of the embeddings are those of the set's paths


def test_what_is_left_must_allow_more_than_one_value(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    for i in range(16):
        if i // 2 % 2:  # all of one centre
            (tmp_path / f"{i:02}.png").unlink()
    with pytest.raises(G2LError, match=r"without 8 of 16 images that cannot be used: .* not 2 and 1"):
        RobustnessBenchmark.look(RobustnessOptions(robustness=path, resamples=100), workers=1)


def write_large_set(folder: Path, slides: int) -> Path:
    """Two classes by two centres, with two patches a slide."""
    rows = ["path,slide_id,patch_id,biological_class,medical_center"]
    for center in "mn":
        for label in "xy":
            for slide in range(slides):
                for patch in range(2):
                    name = f"{center}{label}{slide}-{patch}.png"
                    Image.fromarray(noise(8, 8, 3, seed=len(rows))).save(folder / name)
                    rows.append(f"{name},{center}{label}{slide},{patch},{label},{center}")
    path = folder / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_sweep_is_planned_before_anything_is_computed(tmp_path: Path) -> None:
    path = write_large_set(tmp_path, 7)
    options = RobustnessOptions(robustness=path, robustness_sweep="own", sweep_repeats=3)
    benchmark = RobustnessBenchmark.look(options, workers=1)
    assert benchmark.notes == ()
    assert benchmark.sweep is not None
    assert (benchmark.sweep.repeats, benchmark.sweep.plan.num_trained) == (3, 4)
    assert RobustnessBenchmark.look(RobustnessOptions(robustness=path), workers=1).sweep is None


@pytest.mark.parametrize(
    ("slides", "schedule", "why"),
    [(7, "own", "with 6 in the smallest cell"), (6, "own", "with 5"), (7, "pathorob", "centres of none of PathoROB's")],
)
def test_a_set_that_is_too_small_for_a_sweep_is_told_and_scored(
    tmp_path: Path, slides: int, schedule: Literal["own", "pathorob"], why: str
) -> None:
    """Also where an image cannot be used: its slide has too few patches left."""
    path = write_large_set(tmp_path, slides)
    (tmp_path / "mx0-1.png").write_bytes(b"no image")
    options = RobustnessOptions(robustness=path, robustness_sweep=schedule, resamples=100, margins=False)
    benchmark = RobustnessBenchmark.look(options, workers=1)
    assert benchmark.sweep is None
    (note,) = [note for note in benchmark.notes if note.startswith(f"{path}: No sweep (APD, nIPD): ")]
    assert why in note
    assert note.removeprefix(f"{path}: ") in benchmark.robustness_set.notes


def test_a_table_of_pairs_has_no_sweep(tmp_path: Path) -> None:
    rows = ["path,slide_id,patch_id,scanner"]
    for number in range(4):
        Image.fromarray(noise(8, 8, 3, seed=number)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,S{number // 2},{number % 2},{'pq'[number // 2]}")
    (tmp_path / "r.csv").write_text("\n".join(rows) + "\n")
    options = RobustnessOptions(robustness=tmp_path / "r.csv", robustness_sweep="own")
    (note,) = RobustnessBenchmark.look(options, workers=1).notes
    assert note.endswith("No sweep (APD, nIPD): the table lacks classes and centres.")
