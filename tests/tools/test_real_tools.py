"""Each adapter in the tool that it is for, in an environment made for the purpose: the student's embeddings to 1e-5.

Such an environment takes minutes and up to gigabytes, and tools pin what contradicts this project. So this runs only
with G2L_TOOLS=1 (`make test-tools`); docs/tools.md has what came of it. The environment sees this project's packages
behind its own, so that torch need not be fetched again.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from support.stores import make_patches, student_folder
from support.students import ARGUMENTS, EXPORTED, SPECS, disturb, random_projector, write_exported

from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import table
from pipeline.encoders.build import build_encoder
from pipeline.student.adapters import write_adapters

HERE = Path(__file__).parent
TOOLS = {
    "thunder": (["thunder-bench==0.2.2"], "in_thunder.py"),
    "slide2vec": (["slide2vec==7.1.4"], "in_slide2vec.py"),
    "eva": (["kaiko-eva[vision]==0.4.5"], "in_eva.py"),
    "timm 1.0.19": (["timm==1.0.19"], "in_old_timm.py"),
    "timm 1.0.16": (["timm==1.0.16"], "in_old_timm.py"),
    "timm 1.0.12": (["timm==1.0.12"], "in_old_timm.py"),
}
MOST = 1e-5
"""Largest difference, absolute; values are up to 3."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.environ.get("G2L_TOOLS") != "1", reason="installs other tools; make test-tools runs it"),
]


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Exported students of several kinds with their adapters, some patches, and the embeddings of these."""
    root = tmp_path_factory.mktemp("students")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ENCODERS", MappingProxyType({**table.ENCODERS, **SPECS}))
        made = []
        for number, (label, (architecture, patch_px)) in enumerate(EXPORTED.items()):
            name = architecture
            if label in ARGUMENTS:
                name = student_folder(root / f"source-{number}", architecture, patch_px, **ARGUMENTS[label])
            built = build_encoder(name, SCRATCH, patch_px)
            disturb(built.module.model)
            folder = root / f"student-{number}"
            write_exported(folder, built.module.model, built.spec, random_projector(built.spec.width), "card")
            student = build_encoder(f"local-dir:{folder}", PRETRAINED, patch_px)
            write_adapters(folder, student.spec)
            patches = make_patches(4, patch_px)
            with torch.inference_mode():
                embeddings = student.module(torch.from_numpy(patches)).numpy()
            np.savez(folder / "expected.npz", patches=patches, embeddings=embeddings)
            made.append(folder)
        yield made


@pytest.mark.parametrize("tool", TOOLS)
def test_the_student_has_its_embeddings_in_the_tool(students: list[Path], tmp_path: Path, tool: str) -> None:
    packages, script = TOOLS[tool]
    python = make_environment(tmp_path / "environment", packages)
    lines = []
    for folder in students:
        done = subprocess.run([python, HERE / script, folder], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        lines.append(json.loads(done.stdout.splitlines()[-1]))
    worst = max(value for line in lines for value in line["differences"])
    first, num = lines[0], len(lines)
    print(f"{tool}: {first['tool']}, timm {first['timm']}: largest difference {worst:.2g} over {num} students")
    assert worst <= MOST


def make_environment(folder: Path, packages: list[str]) -> Path:
    """An environment with these packages before this project's own; returns its Python. Skips what cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(place, "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python
