"""Cached embeddings: computed once for each model and data, never mistaken, made anew when damaged."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import BenchmarkError
from pipeline.features.cache import cached, require_finite


class Counted:
    """Embeddings, and how often they were computed."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.calls = values.astype(np.float32), 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.values


def test_they_are_computed_once(tmp_path: Path) -> None:
    compute = Counted(np.random.default_rng(0).normal(size=(5, 3)))
    for _ in range(3):
        found = cached(tmp_path / "new" / "folder", {"model": 1}, {"data": 1}, compute)
        assert (found == compute.values).all()
    assert compute.calls == 1


@pytest.mark.parametrize(("model", "data"), [({"model": 2}, {"data": 1}), ({"model": 1}, {"data": 2})])
def test_another_model_or_other_data_is_another_file(tmp_path: Path, model: dict, data: dict) -> None:
    first, second = Counted(np.zeros((2, 2))), Counted(np.ones((2, 2)))
    cached(tmp_path, {"model": 1}, {"data": 1}, first)
    assert (cached(tmp_path, model, data, second) == 1).all()
    assert (cached(tmp_path, {"model": 1}, {"data": 1}, first) == 0).all()
    assert (first.calls, second.calls) == (1, 1)


def test_a_damaged_file_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compute = Counted(np.ones((4, 2)))
    cached(tmp_path, {}, {}, compute)
    (path,) = tmp_path.glob("*.h5")
    path.write_bytes(path.read_bytes()[:50])
    assert (cached(tmp_path, {}, {}, compute) == 1).all()
    assert compute.calls == 2
    assert "made anew" in capsys.readouterr().err


def test_a_file_under_the_name_of_another_is_not_believed(tmp_path: Path) -> None:
    cached(tmp_path, {"model": 1}, {}, Counted(np.zeros((2, 2))))
    (path,) = tmp_path.glob("*.h5")
    content = path.read_bytes()
    path.unlink()
    cached(tmp_path, {"model": 2}, {}, Counted(np.ones((2, 2))))
    (path,) = tmp_path.glob("*.h5")
    path.write_bytes(content)
    compute = Counted(np.ones((2, 2)))
    assert (cached(tmp_path, {"model": 2}, {}, compute) == 1).all()
    assert compute.calls == 1


def test_what_is_no_number_is_refused() -> None:
    values = np.ones((5, 3), np.float32)
    require_finite("m", values, "patches")
    values[3, 1] = np.nan
    values[4, 0] = np.inf
    with pytest.raises(BenchmarkError, match=r"m: 2 of 5 embeddings of patches hold NaN or infinity.*number 4"):
        require_finite("m", values, "patches")
