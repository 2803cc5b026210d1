"""Options that benchmarks share, and those of the run."""

from pathlib import Path

import pytest

from pipeline.evaluate.options.benchmarks import BENCHMARKS, options_of
from pipeline.evaluate.options.shared import SHARED, ComparedOptions, ImageOptions, ProbeOptions, ResampleOptions


def test_models_are_recorded_by_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    options = ComparedOptions(models=["uni", "before=run@before", "x=uni@scratch", "uni@w.pt"]).absolute()
    assert options.models == ["uni", f"before={tmp_path}/run@before", "x=uni@scratch", f"uni@{tmp_path}/w.pt"]


@pytest.mark.parametrize("kind", [ProbeOptions, ResampleOptions, ImageOptions])
def test_what_is_shared_is_inherited_by_two_benchmarks_or_more(kind: type) -> None:
    assert kind in SHARED
    assert sum(issubclass(options_of(room), kind) for room in BENCHMARKS) > 1


def test_what_is_shared_is_declared_once() -> None:
    names = [name for kind in (ComparedOptions, *SHARED) for name in kind.model_fields]
    assert len(set(names)) == len(names)
