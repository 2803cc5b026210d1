"""A loaded student gives the embeddings that timm and the trained student give."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from support.extraction import embed_by_timm, timm_transform
from support.stores import make_patches
from support.students import EXPORTED, SPECS, disturb, random_projector, write_exported

from g2l.students import PatchTransform, load_student
from pipeline.base.errors import ConfigError, EncoderError
from pipeline.encoders import table
from pipeline.encoders.build import build_encoder
from pipeline.student.folder import load_projector
from pipeline.student.student_json import read_student_json


def test_a_runs_student_is_timms(run: Path) -> None:
    model, transform, projector = load_student(run)
    reference = timm.create_model(f"local-dir:{run / 'student'}", pretrained=True).eval()
    patches = make_patches(3)
    expected = embed_by_timm(reference, timm_transform(32, transform.mean, transform.std), patches)
    with torch.inference_mode():
        embeddings = model(torch.stack([transform(patch) for patch in patches]))
    assert np.allclose(embeddings, expected, atol=1e-6)
    assert embeddings.shape == (3, model.width)
    assert transform.mpp == read_student_json(run / "student").encoder.mpp == 0.5
    assert projector is not None
    kept = load_projector(run / "student")
    assert torch.equal(projector.as_teacher(embeddings), kept.as_teacher(embeddings))
    assert not model.training
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("kind", ["class token", "class token and mean", "cnn"])
def test_every_embedding_rule_is_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ENCODERS", {**table.ENCODERS, **SPECS})
    name, side = EXPORTED[kind]
    built = build_encoder(name, "scratch", side)
    disturb(built.module.model)
    write_exported(tmp_path / "student", built.module.model, built.spec, random_projector(built.spec.width))
    model, transform, projector = load_student(tmp_path / "student")
    patches = torch.from_numpy(make_patches(2, side))
    with torch.inference_mode():
        assert torch.allclose(model(transform(patches.permute(0, 3, 1, 2))), built.module(patches), atol=1e-5)
    assert projector is not None
    assert model.width == built.spec.width


def test_a_patch_may_be_an_image_an_array_or_a_tensor() -> None:
    transform = PatchTransform((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 32, 0.5)
    patch = make_patches(1)[0]
    tensor = torch.from_numpy(patch).permute(2, 0, 1)
    expected = timm_transform(32, transform.mean, transform.std)(Image.fromarray(patch))
    for given in (patch, Image.fromarray(patch), tensor, pickle.loads(pickle.dumps(tensor))):
        assert torch.allclose(transform(given), expected, atol=1e-6)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(tensor[None].expand(4, -1, -1, -1))[3], transform(tensor))
    assert "patch_px=32" in repr(transform)


@pytest.mark.parametrize(
    "patch",
    [
        np.zeros((33, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        torch.zeros(32, 32, 3, dtype=torch.uint8),
        Image.new("RGBA", (32, 32)),
        np.zeros((32, 32, 3), object),
        torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8),
        None,
        3,
    ],
)
def test_other_patches_are_refused(patch: Any) -> None:
    with pytest.raises(EncoderError, match=r"the student takes RGB in 8 bits, uint8 \(3, 32, 32\)"):
        PatchTransform((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 32, 0.5)(patch)


@pytest.mark.parametrize("path", ["a.png", Path("a.png")])
def test_the_name_of_a_file_is_no_patch(path: Any) -> None:
    with pytest.raises(EncoderError, match=r"PIL.Image.open\('a.png'\)"):
        PatchTransform((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 32, 0.5)(path)


def test_the_model_takes_batches(run: Path) -> None:
    model, _, _ = load_student(run)
    for given in (torch.zeros(3, 32, 32), torch.zeros(1, 4, 32, 32), np.zeros((1, 3, 32, 32)), "a.png"):
        with pytest.raises(EncoderError, match=r"takes a batch, float \(B, 3, P, P\).*transform\(patch\)\[None\]"):
            model(given)


def test_batches_of_another_type_or_side_are_told(run: Path) -> None:
    model, transform, _ = load_student(run)
    side = transform.patch_px
    with pytest.raises(EncoderError, match="a batch without patches has no embeddings"):
        model(torch.zeros(0, 3, 32, 32))
    with pytest.raises(EncoderError, match=r"torch.uint8 .*: normalise the patches first, transform\(patches\)"):
        model(torch.zeros(2, 3, side, side, dtype=torch.uint8))  # as `open_store` gives them without `transform`
    with pytest.raises(EncoderError, match=r"torch.float64 .*: the student's weights are torch.float32"):
        model(torch.zeros(2, 3, side, side, dtype=torch.float64))
    model.double()
    assert model(torch.zeros(2, 3, side, side, dtype=torch.float64)).shape == (2, model.width)


def test_a_vit_takes_patches_of_its_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ENCODERS", {**table.ENCODERS, **SPECS})
    name, side = EXPORTED["class token"]
    built = build_encoder(name, "scratch", side)
    write_exported(tmp_path / "student", built.module.model, built.spec, random_projector(built.spec.width))
    model = load_student(tmp_path / "student").model
    with pytest.raises(EncoderError, match=r"the student takes patches of \d+ by \d+ pixels"):
        model(torch.zeros(2, 3, 20, 20))


def test_a_teacher_of_what_is_no_student_is_refused(run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(run / "student" / name, tmp_path / name)
    assert load_student(tmp_path).projector is None
    with pytest.raises(ConfigError, match=r"teacher='uni': .* has learnt from no teacher"):
        load_student(tmp_path, teacher="uni")


def test_what_is_no_student_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match="neither an exported student nor a run"):
        load_student(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="training is not finished"):
        load_student(tmp_path)
    with pytest.raises(EncoderError):
        load_student(trained / "run", teacher="another")


def test_a_damaged_student_is_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_bytes((run / "student" / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError, match="student"):
        load_student(folder)
