"""What tests of a doctor share."""

from pathlib import Path

import pytest
from support.slides import make_slide


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    make_slide(folder / "a.tif", width=1600, height=1280, mpp=0.5, downsamples=(1, 4))
    (folder / "manifest.csv").write_text("slide_id,path,case_id\na,a.tif,A\n")
    return folder / "manifest.csv"
