"""Feature files and where their patches lie."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from support.extraction import PATCH_PX
from support.features import FeatureSlide, write_clam, write_trident
from support.importing import assert_same_rows, rows_of, run_import

from pipeline.base.errors import ConfigError, PlanError
from pipeline.store.store import Store


def test_a_folder_of_coordinates_that_is_of_no_use_is_told(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_trident(tmp_path / "features", slides)
    (tmp_path / "empty").mkdir()
    run_import(features, tmp_path / "s.zarr", options, coords=tmp_path / "empty")
    words = f"note: --coords {tmp_path / 'empty'} is not used: the feature files say themselves where their patches lie"
    assert capsys.readouterr().err.count(words) == 1


def test_coordinates_in_a_folder_of_their_own(
    tmp_path: Path,
    extracted: Store,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = write_clam(tmp_path / "features", slides)
    shutil.move(features / "patches", tmp_path / "coords")
    with pytest.raises(ConfigError, match="give --patch-px"):
        run_import(features, tmp_path / "s.zarr", options)
    done = run_import(features, tmp_path / "s.zarr", options, coords=tmp_path / "coords")
    assert_same_rows(rows_of(done.store), rows_of(extracted))
    assert "--coords" not in capsys.readouterr().err
    shutil.rmtree(features / "h5_files")
    with pytest.raises(PlanError, match=r"s0\.pt: no coordinates in it nor beside it; --coords names the folder"):
        run_import(features, tmp_path / "t.zarr", options, patch_px=PATCH_PX, mpp=0.5)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["uni", "virchow"], "the files name different encoders: uni, virchow. Import one folder of features"),
        (["my-encoder", "my-encoder"], "note: the files name the encoder my-encoder, --teacher says"),
    ],
)
def test_encoders_that_files_name(
    tmp_path: Path,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    named: list[str],
    words: str,
) -> None:
    features = write_trident(tmp_path / "features", slides)
    for path, name in zip(sorted(features.rglob("*.h5")), named, strict=True):
        with h5py.File(path, "a") as f:
            f["features"].attrs["encoder"] = name
    if words.startswith("note"):
        run_import(features, tmp_path / "s.zarr", options)
        assert words in capsys.readouterr().err
    else:
        with pytest.raises(ConfigError, match=words):
            run_import(features, tmp_path / "s.zarr", options)
