"""DICOM headers: which slide a file belongs to, and no answer where the header is damaged."""

from pathlib import Path

import numpy as np
from support.dicom import RGB, write_instance
from support.files import put

from pipeline.slides.dicom import DicomHeader, read_header


def test_headers(tmp_path: Path) -> None:
    path = write_instance(tmp_path / "a.dcm", RGB, "1.2.3.4", 1)
    assert read_header(path) == DicomHeader("1.2.3.4", True, "volume")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for stop in (0, 100, 131, 140, 200, 300, 400):
        assert read_header(put(tmp_path / "cut.dcm", data[:stop])) in (None, *_less_known())
    for _ in range(200):  # damaged: another answer or none, never an exception
        odd = bytearray(data[:800])
        for at in rng.integers(132, 800, 5):
            odd[at] = rng.integers(0, 256)
        read_header(put(tmp_path / "odd.dcm", bytes(odd)))
    assert read_header(tmp_path / "none.dcm") is None


def _less_known() -> list[DicomHeader]:
    """What may be read of a header that ends early."""
    return [DicomHeader("", known, kind) for known in (False, True) for kind in ("", "volume")]
