"""Draws by name: every method of the option has one, and each is what all of them promise."""

from typing import get_args

import numpy as np
import pytest

from pipeline.cohort.draws.by_method import DRAWS, sample_by_method, sample_of_slide
from pipeline.config.groups import SampleMethod, Sampling
from pipeline.sampling import sample_patches
from pipeline.slides.annotations.patch_classes import PatchClasses

GRID = np.stack([a.ravel() for a in np.meshgrid(np.arange(20) * 448, np.arange(15) * 448)], axis=1)


def test_every_method_has_a_draw() -> None:
    assert set(DRAWS) | {"class"} == set(get_args(SampleMethod))
    coords = np.stack([np.arange(90) * 64, np.zeros(90, np.int64)], axis=1)
    classes = PatchClasses(("rare",), (np.arange(90) < 5).astype(np.float32)[:, None])
    for method in DRAWS:
        drawn = sample_of_slide("s", coords, classes, Sampling(12, 3, 0.1, method=method, candidates=1))
        np.testing.assert_array_equal(drawn, sample_by_method(method, "s", coords, 12, 3))
    by_class = sample_of_slide("s", coords, classes, Sampling(12, 3, 0.1, method="class"))
    assert by_class[:5].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", DRAWS)
def test_a_draw_is_ascending_nested_and_of_the_seed_and_the_slide(method: SampleMethod) -> None:
    few, many = (sample_by_method(method, "s", GRID, num, 0) for num in (20, 90))
    assert (len(few), len(many)) == (20, 90)
    assert (np.diff(many) > 0).all()
    assert set(few) < set(many)
    for slide_id, seed in (("s", 1), ("t", 0)):
        assert set(sample_by_method(method, slide_id, GRID, 20, seed)) != set(few)
    for num in (None, 300, 301):
        assert sample_by_method(method, "s", GRID, num, 0).tolist() == list(range(300))


def test_uniform_is_the_papers_draw() -> None:
    np.testing.assert_array_equal(sample_by_method("uniform", "s", GRID, 50, 3), sample_patches("s", GRID, 50, 3))
