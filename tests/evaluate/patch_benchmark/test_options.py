"""Options of the patch benchmark."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.patch_benchmark.options import PatchOptions


@pytest.mark.parametrize("values", [{"knn": 0}, {"draws": 0}, {"folds": 1}, {"protocol": "plane"}])
def test_values_out_of_bounds_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"  {next(iter(values))}: "):
        PatchOptions.build(values)


def test_the_table_and_its_images_are_recorded_by_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = PatchOptions(patches=Path("p.csv"), images_root=Path("images")).absolute()
    assert (options.patches, options.images_root) == (tmp_path / "p.csv", tmp_path / "images")
