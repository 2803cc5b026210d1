"""ONNX files give the embeddings that timm gives; those that do not are refused."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.exports import by_timm, tamper
from support.stores import make_patches
from support.students import EXPORTED

from pipeline.base.errors import ConfigError, ExportError
from pipeline.encoders.build import BuiltEncoder
from pipeline.student import onnx_file
from pipeline.student.onnx_file import OPSET, check_onnx, write_onnx
from pipeline.student.program import MAX_DIFFERENCE
from stages.export import export_student

WRITTEN = "class token and mean"
"""The student whose file several tests share: an exporter takes seconds."""


@pytest.fixture(scope="module")
def written(built: dict[str, BuiltEncoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the student with class token and mean, by itself in its folder; to be changed in a copy only."""
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    share = write_onnx(built[WRITTEN].module, path, {"weights_sha256": "abc", "count": 3})
    assert 0 <= share <= MAX_DIFFERENCE
    assert os.listdir(path.parent) == ["model.onnx"]
    return path


def by_onnx(path: Path, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], {"patches": patches})[0])


@pytest.mark.slow
@pytest.mark.parametrize("label", EXPORTED)
def test_onnx_and_timm_agree_at_any_batch(
    built: dict[str, BuiltEncoder], written: Path, label: str, tmp_path: Path
) -> None:
    student, path = built[label], written
    if label != WRITTEN:
        path = tmp_path / "model.onnx"
        assert 0 <= write_onnx(student.module, path, {}) <= MAX_DIFFERENCE
    for count in (1, 2, 7):
        patches = make_patches(count, student.spec.patch_px, seed=count)
        expected = by_timm(student, patches)
        found = by_onnx(path, patches)
        assert found.shape == (count, student.spec.width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=MAX_DIFFERENCE * np.abs(expected).max())
        assert count == 1 or expected.std(0).min() > 1e-6  # patches differ: agreement means something


@pytest.mark.slow
def test_an_onnx_file_says_what_it_is(built: dict[str, BuiltEncoder], written: Path) -> None:
    student, model = built[WRITTEN], onnx.load(written)
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert said["input"].startswith("patches: uint8 (batch, 42, 42, 3), RGB")
    assert said["output"] == "embedding: float32 (batch, 64), embedding rule cls+mean"
    assert json.loads(said["mean"]) == list(student.spec.mean)
    assert (said["weights_sha256"], said["count"]) == ("abc", "3")
    assert "inherits its teacher's terms" in said["terms"]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 42, 42, 3]
    assert not re.search(rb"site-packages|pipeline/|File \"|/tmp/", written.read_bytes())


@pytest.mark.slow
def test_weights_too_large_for_one_file_lie_beside_it(
    built: dict[str, BuiltEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MOST_WITHIN_BYTES", 1000)
    student = built["vit, pooled"]
    assert write_onnx(student.module, tmp_path / "model.onnx", {}) <= MAX_DIFFERENCE
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]
    patches = make_patches(2, 42)
    np.testing.assert_allclose(by_onnx(tmp_path / "model.onnx", patches), by_timm(student, patches), atol=1e-4)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ExportError, match=r"model\.onnx"):
        check_onnx(student.module, tmp_path / "model.onnx")


@pytest.mark.slow
def test_an_onnx_file_with_other_weights_is_refused(
    built: dict[str, BuiltEncoder], written: Path, tmp_path: Path
) -> None:
    student, path = built[WRITTEN], Path(shutil.copy(written, tmp_path))
    check_onnx(student.module, path)
    tamper(path)
    with pytest.raises(ExportError, match=r"model\.onnx gives other embeddings than the student"):
        check_onnx(student.module, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"model\.onnx"):
        check_onnx(student.module, path)


def test_the_packages_are_asked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    with pytest.raises(ConfigError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'g2l\[onnx\]'"):
        export_student(tmp_path / "run", tmp_path / "out", ["onnx"])
    assert not list(tmp_path.iterdir())


def test_the_lowest_version_of_the_format_is_that_of_the_opset() -> None:
    assert onnx_file.lowest_ir_version({"": OPSET}) == onnx_file.IR_VERSION == 8  # as the card says
    assert onnx_file.lowest_ir_version({"": OPSET}) <= onnx_file.lowest_ir_version({"": OPSET + 4})


def test_metadata_are_text_and_the_format_s_own_words_stand(built: dict[str, BuiltEncoder]) -> None:
    """A fact of the caller cannot replace what the file says of its own input."""
    said = onnx_file.metadata(built["cnn"].module, {"count": 3, "name": "x", "none": None, "input": "wrong"})
    assert all(isinstance(value, str) for value in said.values())
    assert (said["count"], said["name"], said["none"]) == ("3", "x", "null")
    assert said["input"].startswith("patches: uint8 (batch, 40, 40, 3)")
