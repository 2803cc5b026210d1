"""What the project says of itself: licence, notice and citation agree with the package, and its benchmarks start."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""Of https://www.apache.org/licenses/LICENSE-2.0.txt as most projects carry it (without the leading blank line)."""


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


def test_licence_and_notice_go_into_the_packages() -> None:
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE"}
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])
    assert any("2510.11176" in i["value"] for r in citation["references"] for i in r.get("identifiers", []))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codec", "evaluate_speed", "fuzz", "kill_campaign", "probe_choice"])
def test_a_benchmark_starts_from_any_folder(tmp_path: Path, name: str) -> None:
    """As RESULTS.md has them, with the module path of the installed package only."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
