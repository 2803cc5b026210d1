"""Exported students that the tests of several modules read."""

from pathlib import Path
from types import MappingProxyType

import pytest
from support.stores import student_folder
from support.students import ARGUMENTS, EXPORTED, SPECS, disturb, random_projector, small_student, write_exported

from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import table as encoders
from pipeline.encoders.build import BuiltEncoder, build_encoder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltEncoder]:
    """Each student of `EXPORTED`, exported for timm and read again, as `g2l export` does."""
    root = tmp_path_factory.mktemp("students")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "ENCODERS", MappingProxyType({**encoders.ENCODERS, **SPECS}))
        for i, (label, (name, patch_px)) in enumerate(EXPORTED.items()):
            source = name if name in SPECS else student_folder(root / f"source {i}", name, patch_px, **ARGUMENTS[label])
            student = build_encoder(source, SCRATCH, patch_px)
            disturb(student.module.model)
            folder = root / str(i)
            write_exported(folder, student.module.model, student.spec, random_projector(student.spec.width), "card")
            made[label] = build_encoder(f"local-dir:{folder}", PRETRAINED, patch_px)
            made[label].module.requires_grad_(False)
    return made


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """The folder of a student of two teachers."""
    model, spec, _ = small_student(1)
    write_exported(tmp_path / "student", model, spec, {name: random_projector(2) for name in ("a", "b/c")})
    return tmp_path / "student"
