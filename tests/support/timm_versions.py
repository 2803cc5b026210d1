"""The source of `pipeline/data/timm_versions.csv`: which version of timm is the first to have an architecture.

`python tests/support/timm_versions.py VERSION ...` fetches these versions from the package index, oldest first, and
asks each for its architectures. A newer timm adds its own: name all versions again.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "pipeline" / "data" / "timm_versions.csv"
LISTS = "import sys, timm; assert timm.__version__ == sys.argv[1]; print(*timm.list_models(), sep='\\n')"


def architectures(version: str) -> list[str]:
    """The architectures that a version has, fetched from the package index."""
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*install, f"timm=={version}"], check=True)
        command = [sys.executable, "-W", "ignore", "-c", LISTS, version]
        environment = os.environ | {"PYTHONPATH": folder}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def rows(versions: list[str]) -> Iterator[tuple[str, str]]:
    """Each architecture with the first version that has it, in the order of their names."""
    first: dict[str, str] = {}
    for version in versions:
        for name in architectures(version):
            first.setdefault(name, version)
    yield from sorted(first.items())


if __name__ == "__main__":
    with PATH.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("architecture", "timm"), *rows(sys.argv[1:])])
