"""ONNX and torch.export files give the embeddings that timm gives; those that do not are refused."""

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from support.commands import call_g2l, leftovers
from support.stores import dropping_cnn, make_patches, make_store, student_folder, train_config
from support.students import SPECS, TINY, disturb, random_projector, write_exported

from pipeline.base.errors import ConfigError, ExportError
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import table as encoders
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.student import onnx_file
from pipeline.student.onnx_file import OPSET, check_onnx, write_onnx
from pipeline.student.program import TOLERANCE, check_file, check_program, tissue_patches, write_program
from stages.export import export_student
from stages.train_student import train_student

STUDENTS = {
    "vit, pooled": ("vit_small_patch14_reg4_dinov2", 42),
    "vit of any size": ("test_vit", 42),
    "cnn": ("test_efficientnet", 40),
    "class token": ("tiny-swiglu", 42),
    "class token and mean": ("tiny-mean", 42),
}

ARGUMENTS = {"vit, pooled": TINY, "vit of any size": TINY | {"dynamic_img_size": True, "patch_size": 14}, "cnn": {}}
FAST = ("class token and mean",)
"""An exporter takes seconds: the other students are slow cases."""
LABELS = [pytest.param(label, marks=() if label in FAST else pytest.mark.slow) for label in STUDENTS]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltEncoder]:
    """Each student of `STUDENTS`, exported for timm and read again, as `g2l export` does."""
    root = tmp_path_factory.mktemp("students")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "ENCODERS", MappingProxyType({**encoders.ENCODERS, **SPECS}))
        for i, (label, (name, patch_px)) in enumerate(STUDENTS.items()):
            source = name if name in SPECS else student_folder(root / f"source {i}", name, patch_px, **ARGUMENTS[label])
            student = build_encoder(source, SCRATCH, patch_px)
            disturb(student.module.model)
            folder = root / str(i)
            write_exported(folder, student.module.model, student.spec, random_projector(student.spec.width), "card")
            made[label] = build_encoder(f"local-dir:{folder}", PRETRAINED, patch_px)
            made[label].module.requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def written(built: dict[str, BuiltEncoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the student with class token and mean, by itself in its folder; to be changed in a copy only."""
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    share = write_onnx(built["class token and mean"].module, path, {"weights_sha256": "abc", "count": 3})
    assert 0 <= share <= TOLERANCE
    assert os.listdir(path.parent) == ["model.onnx"]
    return path


def by_timm(student: BuiltEncoder, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The embeddings as the card says that timm gives them, with timm's own transform."""
    model = timm.create_model(student.spec.source, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = torch.stack([transform(Image.fromarray(patch)) for patch in patches])
    with torch.inference_mode():
        if student.spec.embedding != "cls+mean":
            return np.asarray(model(images))
        tokens = model.forward_features(images)
        return np.asarray(torch.cat([tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(1)], dim=1))


def by_onnx(path: Path, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], {"patches": patches})[0])


@pytest.mark.parametrize("label", LABELS)
def test_onnx_and_timm_agree_at_any_batch(
    built: dict[str, BuiltEncoder], written: Path, label: str, tmp_path: Path
) -> None:
    student, path = built[label], written
    if label not in FAST:
        path = tmp_path / "model.onnx"
        assert 0 <= write_onnx(student.module, path, {}) <= TOLERANCE
    for count in (1, 2, 7):
        patches = make_patches(count, student.spec.patch_px, seed=count)
        expected = by_timm(student, patches)
        found = by_onnx(path, patches)
        assert found.shape == (count, student.spec.width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
        assert count == 1 or expected.std(0).min() > 1e-6  # patches differ: agreement means something


def test_an_onnx_file_says_what_it_is(built: dict[str, BuiltEncoder], written: Path) -> None:
    student, model = built["class token and mean"], onnx.load(written)
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
@pytest.mark.parametrize("label", STUDENTS)
def test_a_program_is_loaded_by_torch_alone(built: dict[str, BuiltEncoder], label: str, tmp_path: Path) -> None:
    student, path = built[label], tmp_path / "model.pt2"
    assert write_program(student.module, path) <= TOLERANCE
    patches = make_patches(3, student.spec.patch_px)
    np.save(tmp_path / "patches.npy", patches)
    code = (
        "import sys, numpy as np, torch\n"
        "model = torch.export.load('model.pt2').module()\n"
        "patches = torch.from_numpy(np.load('patches.npy'))\n"
        "np.save('found.npy', torch.cat([model(patches[:1]), model(patches[1:])]).numpy())\n"
        "assert not {'timm', 'pipeline'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = by_timm(student, patches)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if b"site-packages" in archive.read(name)]


@pytest.mark.slow
def test_weights_too_large_for_one_file_lie_beside_it(
    built: dict[str, BuiltEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE_BYTES", 1000)
    student = built["vit, pooled"]
    assert write_onnx(student.module, tmp_path / "model.onnx", {}) <= TOLERANCE
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]
    patches = make_patches(2, 42)
    np.testing.assert_allclose(by_onnx(tmp_path / "model.onnx", patches), by_timm(student, patches), atol=1e-4)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ExportError, match=r"model\.onnx"):
        check_onnx(student.module, tmp_path / "model.onnx")


def tamper(path: Path) -> None:
    """Move one weight of an ONNX file."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.flat[:: max(1, values.size // 50)] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def test_an_onnx_file_with_other_weights_is_refused(
    built: dict[str, BuiltEncoder], written: Path, tmp_path: Path
) -> None:
    student, path = built["class token and mean"], Path(shutil.copy(written, tmp_path))
    check_onnx(student.module, path)
    tamper(path)
    with pytest.raises(ExportError, match=r"model\.onnx gives other embeddings than the student"):
        check_onnx(student.module, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"model\.onnx"):
        check_onnx(student.module, path)


@pytest.mark.slow
def test_a_program_of_another_student_or_a_cut_one_is_refused(built: dict[str, BuiltEncoder], tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    write_program(built["class token"].module, path)
    with pytest.raises(ExportError, match=r"model\.pt2 gives \(1, 32\) for 1 patches, not \(1, 64\)"):
        check_program(built["class token and mean"].module, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ExportError, match=r"model\.pt2"):
        check_program(built["class token"].module, path)


def test_the_check_sees_every_kind_of_wrong_output(built: dict[str, BuiltEncoder]) -> None:
    student = built["cnn"].module

    def right(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(student(torch.from_numpy(patches)))

    def failing(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(patches) != 1:
            raise RuntimeError("Got 5 for dimension 0, expected 1\nmore")
        return right(patches)

    path = Path("model.x")
    assert check_file(path, right, student) == 0
    assert 0 < check_file(path, lambda p: right(p) + 1e-9, student) <= TOLERANCE
    for wrong in (lambda p: right(p) * 1.001, lambda p: right(p) * np.nan, lambda p: right(p[::-1].copy())):
        with pytest.raises(ExportError, match="gives other embeddings"):
            check_file(path, wrong, student)
    with pytest.raises(ExportError, match=r"does not run on a batch of 5 \(Got 5 for dimension 0, expected 1\)"):
        check_file(path, failing, student)


def test_patches_of_the_check_look_like_tissue() -> None:
    patches = tissue_patches(6, 64, seed=3)
    assert (patches.dtype, patches.shape) == (np.uint8, (6, 64, 64, 3))
    np.testing.assert_array_equal(patches, tissue_patches(6, 64, seed=3))
    red, green, blue = patches.reshape(-1, 3).mean(0)
    assert green < blue
    assert green < red  # pink to purple
    assert patches.std() > 25
    assert np.abs(np.diff(patches.astype(int), axis=1)).mean() < patches.std()  # structures, not only noise
    assert len({patch.tobytes() for patch in patches}) == 6


def test_the_packages_are_asked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    with pytest.raises(ConfigError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'g2l\[onnx\]'"):
        export_student(tmp_path / "run", tmp_path / "out", ["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("run")
    train_student(make_store(root / "store.zarr"), root / "run", train_config(dropping_cnn(root / "start"), epochs=1))
    return root / "run"


@pytest.mark.slow
def test_the_command_writes_every_format_and_the_card_shows_how_they_are_used(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    code, said, errors = call_g2l("export", run, "--out", out, "--format", "onnx", "--format", "torch-export")
    assert code == 0
    assert errors.splitlines() == [
        "writing model.onnx and running it by ONNX Runtime", "writing model.pt2 and running it",
    ]  # fmt: skip
    assert re.search(r"model\.onnx: the same to \S+ of the largest value", said)
    assert sorted(os.listdir(out)) == [
        "README.md", "adapters", "config.json", "model.onnx", "model.pt2", "model.safetensors", "projector",
        "student.json",
    ]  # fmt: skip
    assert not leftovers(tmp_path)
    written = onnx.load(out / "model.onnx")
    assert {p.key: p.value for p in written.metadata_props}["um_per_px"] == "0.5"
    assert (written.ir_version, written.opset_import[0].version) == (8, 18)  # ONNX Runtime 1.15 and later read it
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o666 & ~umask}
    card = (out / "README.md").read_text()
    for name in ("config.json", "model.onnx", "model.pt2", "model.safetensors", "projector/projector.safetensors",
                 "student.json"):  # fmt: skip
        assert f"    {hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}" in card
    patch = make_patches(1, 32)[0]
    embeddings = []
    for code_block in re.findall(r"```python\n(.*?)```", card, re.S)[
        :3
    ]:  # timm, ONNX, torch.export, as a user copies them
        scope = {"patch": patch}
        if "create_transform" in code_block:
            from PIL import Image

            scope = {"patch": Image.fromarray(patch)}
        exec(code_block.replace("PATH", str(out)), scope)
        embeddings.append(np.asarray(scope["embedding"]))
    for found in embeddings[1:]:
        np.testing.assert_allclose(found, embeddings[0], rtol=0, atol=1e-4 * np.abs(embeddings[0]).max())


def test_timm_alone_has_no_word_of_other_files(run: Path, tmp_path: Path) -> None:
    code, _, _ = call_g2l("export", run, "--out", tmp_path / "student")
    assert code == 0
    assert sorted(os.listdir(tmp_path / "student")) == sorted([*os.listdir(run / "student"), "adapters"])
    card = (tmp_path / "student" / "README.md").read_text()
    assert "model.onnx" not in card
    assert "model.pt2" not in card
    assert card.startswith((run / "student" / "README.md").read_text().split("## Made from")[0])
    assert card.endswith((run / "student" / "README.md").read_text().split("## Made from")[1])


@pytest.mark.slow
def test_an_export_whose_onnx_is_wrong_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = onnx_file.check_onnx

    def checked(encoder: torch.nn.Module, path: Path) -> float:
        tamper(path)
        return check(encoder, path)

    monkeypatch.setattr(onnx_file, "check_onnx", checked)
    with pytest.raises(ExportError, match="gives other embeddings"):
        export_student(run, tmp_path / "student", ["onnx"])
    assert not list(tmp_path.iterdir())


def test_a_student_that_cannot_be_traced_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise TypeError("no such operator\nand a long report")

    monkeypatch.setattr(torch.export, "export", fails)
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--format", "torch-export")
    assert code == 1
    _, error = errors.splitlines()
    assert error.startswith("error: the student cannot be written as model.pt2 (TypeError: no such operator). The")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for place in ("torch.export.save", "pipeline.student.adapters.write_text"):
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--format", "torch-export")
        assert code == 1
        assert f"cannot write the student to {tmp_path / 'student'}: No space left on device" in errors
        assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_named(run: Path, tmp_path: Path) -> None:
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--format", "onx")
    assert code == 1
    assert "'timm', 'onnx' or 'torch-export' (got 'onx')" in errors
    assert not list(tmp_path.iterdir())
    (tmp_path / "g2l.toml").write_text('[export]\nformat = ["torch-export"]\n')
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--config", tmp_path / "g2l.toml")
    assert (code, errors) == (0, "writing model.pt2 and running it\n")
    assert (tmp_path / "student" / "model.pt2").exists()
