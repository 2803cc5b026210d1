"""Exports load where people are: by real older versions of timm, fetched if the package index is in reach."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import child_environment

from stages.export import export_student

LOADS = """
import os, sys
import huggingface_hub, safetensors.torch, torch, torchvision  # once for all versions of timm, which import them

def load(student, version, found):
    import timm
    assert timm.__version__ == version, timm.__version__
    sys.path.insert(0, student + "/adapters")
    import eva_student
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = eva_student.load_student()
    if version != "1.0.15":  # which has no local-dir
        by_folder = timm.create_model("local-dir:" + student, pretrained=True).eval()
        assert torch.equal(by_folder(images), model(images))
    torch.save(model(images), found)

student, *targets = sys.argv[1:]
for target in targets:
    child = os.fork()
    if not child:
        sys.path.insert(0, target)
        load(student, os.path.basename(target), target + "/found.pt")
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0, target
"""
"""Loads an export with the timm in each of some folders, which are called as its version."""
VERSIONS = ("1.0.15", "1.0.16", "1.0.20", "1.0.28")


@pytest.mark.slow
def test_older_versions_of_timm_open_an_export(trained: Path, tmp_path: Path) -> None:
    import timm
    import torch

    student = tmp_path / "student"
    export_student(trained / "run", student)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = timm.create_model(f"local-dir:{student}", pretrained=True).eval()(images)
    targets = [tmp_path / version for version in VERSIONS]
    for target in targets:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        fetched = subprocess.run([*command, f"timm=={target.name}"], capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"no package index in reach: {fetched.stderr.strip()[-200:]}")
    arguments = [sys.executable, "-W", "ignore", "-c", LOADS, str(student), *map(str, targets)]
    done = subprocess.run(arguments, env=child_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for target in targets:
        found = torch.load(target / "found.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
