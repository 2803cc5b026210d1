"""Exports load where people are: by real older versions of timm, fetched if the package index is in reach."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import child_environment

from stages.export import export_student

LOADS = """
import sys, timm, torch
assert timm.__version__ == sys.argv[2], timm.__version__
sys.path.insert(0, sys.argv[1] + "/adapters")
import eva_student
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
model = eva_student.load_student()
if sys.argv[2] != "1.0.15":  # which has no local-dir
    by_folder = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
    assert torch.equal(by_folder(images), model(images))
torch.save(model(images), sys.argv[3])
"""


@pytest.mark.slow
def test_older_versions_of_timm_open_an_export(trained: Path, tmp_path: Path) -> None:
    import timm
    import torch

    student = tmp_path / "student"
    export_student(trained / "run", student)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = timm.create_model(f"local-dir:{student}", pretrained=True).eval()(images)
    for version in ("1.0.15", "1.0.16", "1.0.20", "1.0.28"):
        target = tmp_path / version
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        fetched = subprocess.run([*command, f"timm=={version}"], capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"no package index in reach: {fetched.stderr.strip()[-200:]}")
        arguments = [sys.executable, "-W", "ignore", "-c", LOADS, str(student), version, str(tmp_path / "e.pt")]
        environment = child_environment() | {"PYTHONPATH": str(target)}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (version, done.stderr)
        torch.testing.assert_close(torch.load(tmp_path / "e.pt", weights_only=True), expected, rtol=1e-4, atol=1e-5)
