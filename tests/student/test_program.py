"""ONNX and torch.export files give the embeddings that timm gives; those that do not are refused."""

import errno
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from support.commands import call_g2l, leftovers
from support.exports import by_timm, tamper
from support.failing import failing, os_error
from support.stores import dropping_cnn, make_patches
from support.students import EXPORTED
from support.training import train_once

from pipeline.base.errors import ExportError
from pipeline.encoders.build import BuiltEncoder
from pipeline.student import onnx_file
from pipeline.student.program import MAX_DIFFERENCE, check_file, check_program, tissue_patches, write_program
from stages.export import export_student

LOADS = """
import sys, numpy as np, torch
for folder in sys.argv[1:]:
    model = torch.export.load(folder + '/model.pt2').module()
    patches = torch.from_numpy(np.load(folder + '/patches.npy'))
    np.save(folder + '/found.npy', torch.cat([model(patches[:1]), model(patches[1:])]).numpy())
assert not {'timm', 'pipeline'} & set(sys.modules)
"""


@pytest.mark.slow
def test_a_program_is_loaded_by_torch_alone(built: dict[str, BuiltEncoder], tmp_path: Path) -> None:
    folders = {label: tmp_path / str(number) for number, label in enumerate(EXPORTED)}
    for label, folder in folders.items():
        folder.mkdir()
        assert write_program(built[label].module, folder / "model.pt2") <= MAX_DIFFERENCE, label
        np.save(folder / "patches.npy", make_patches(3, built[label].spec.patch_px))
        with zipfile.ZipFile(folder / "model.pt2") as archive:
            assert not [name for name in archive.namelist() if b"site-packages" in archive.read(name)], label
    command = [sys.executable, "-I", "-c", LOADS, *folders.values()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for label, folder in folders.items():
        expected = by_timm(built[label], np.load(folder / "patches.npy"))
        found = np.load(folder / "found.npy")
        tolerance = MAX_DIFFERENCE * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=label)


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
    assert 0 < check_file(path, lambda p: right(p) + 1e-9, student) <= MAX_DIFFERENCE
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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return train_once(tmp_path_factory.mktemp("trained"), dropping_cnn) / "run"


@pytest.mark.slow
def test_the_command_writes_every_format_and_the_card_shows_how_they_are_used(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    code, said, errors = call_g2l("export", run, "--out", out, "--format", "onnx", "--format", "torch-export")
    assert code == 0
    assert errors.splitlines() == [
        "writing model.onnx and running it by ONNX Runtime",
        "writing model.pt2 and running it",
    ]
    assert re.search(r"model\.onnx: the same to \S+ of the largest value", said)
    assert sorted(os.listdir(out)) == [
        "README.md",
        "adapters",
        "config.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "projector",
        "student.json",
    ]
    assert not leftovers(tmp_path)
    written = onnx.load(out / "model.onnx")
    assert {p.key: p.value for p in written.metadata_props}["um_per_px"] == "0.5"
    assert (written.ir_version, written.opset_import[0].version) == (8, 18)  # ONNX Runtime 1.15 and later read it
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o666 & ~umask}
    card = (out / "README.md").read_text()
    for name in (
        "config.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "projector/projector.safetensors",
        "student.json",
    ):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("torch.export.save", "pipeline.student.adapters.write_text"):
        with monkeypatch.context() as patched:
            patched.setattr(place, failing(os_error(errno.ENOSPC)))
            code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--format", "torch-export")
        assert code == 1
        assert f"cannot write the student to {tmp_path / 'student'}: No space left on device" in errors
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_unknown_format_is_named(run: Path, tmp_path: Path) -> None:
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--format", "onx")
    assert code == 1
    assert "'timm', 'onnx' or 'torch-export' (got 'onx')" in errors
    assert not list(tmp_path.iterdir())
    (tmp_path / "g2l.toml").write_text('[export]\nformat = ["torch-export"]\n')
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--config", tmp_path / "g2l.toml")
    assert (code, errors) == (0, "writing model.pt2 and running it\n")
    assert (tmp_path / "student" / "model.pt2").exists()
