"""Write the student as a file that runs without its code, and check that the file gives the student's embeddings.

model.pt2     torch.export's program, for torch alone
model.onnx    see `onnx_file`

Both take uint8 RGB patches with channels last, as a slide reader gives them, and normalise inside, so that nobody can
use the wrong statistics, the commonest mistake with an encoder. The batch size is free. Left out: the projector, which
is one linear map and lies beside them; half precision; input sizes other than the student's own.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.base.errors import ExportError, first_line
from pipeline.encoders.build import Encoder

INPUT, OUTPUT, BATCH = "patches", "embedding", "batch"
"""Names of a file's input, its output and its free dimension."""
CHECKED_BATCHES = (1, 5)
"""Patches a batch in the check: a single one, at which exporters like to fix the size, and an odd number."""
MAX_DIFFERENCE = 1e-4
"""Largest difference from torch, as a share of the largest value of the embeddings. Our choice: float32 arithmetic in
another order leaves 1e-6 (decision 0019), more where a trained student has outliers; a wrong weight, statistic or token
far more.
"""
LOGGERS = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir", "onnxruntime")

EmbedPatches = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (B, P, P, 3) -> float32 (B, D), by whatever runs the file."""


def tissue_patches(count: int, patch_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Made-up patches with the colours and scales of stained tissue: uint8 (count, P, P, 3) RGB.

    White ground, eosin in wide smooth areas, haematoxylin in small spots, and noise of a camera.
    """
    rng = np.random.default_rng(seed)
    white, eosin, haematoxylin = ([243, 241, 244], [222, 150, 190], [98, 66, 140])  # our choice, by eye
    images = np.empty((count, patch_px, patch_px, 3), np.uint8)
    for i in range(count):
        image = np.full((patch_px, patch_px, 3), white, np.float64)
        for colour, scale, threshold in ((eosin, patch_px / 8, -0.3), (haematoxylin, max(1.5, patch_px / 40), 0.8)):
            field = ndimage.gaussian_filter(rng.standard_normal((patch_px, patch_px)), scale, mode="wrap")
            amount = 1 / (1 + np.exp(-6 * (field / field.std() - threshold)))
            image += amount[..., None] * (np.array(colour) - image)
        images[i] = (image + rng.normal(0, 4, image.shape)).clip(0, 255)
    return images


@torch.inference_mode()
def check_file(path: Path, run: EmbedPatches, encoder: Encoder) -> float:
    """Compare a file's embeddings with the student's, in batches of `CHECKED_BATCHES`.

    Returns:
        The largest difference as a share of the largest value.

    Raises:
        ExportError: it does not run, gives another shape, or differs by more than `MAX_DIFFERENCE`.
    """
    largest = 0.0
    for count in CHECKED_BATCHES:
        patches = tissue_patches(count, encoder.spec.patch_px, seed=count)
        expected = encoder(torch.from_numpy(patches)).float().numpy()
        try:
            actual = run(patches)
        except Exception as error:  # each runtime has errors of its own; none may leave a file that fails
            raise ExportError(f"{path.name} does not run on a batch of {count} ({first_line(error)})") from error
        if actual.shape != expected.shape:
            raise ExportError(f"{path.name} gives {actual.shape} for {count} patches, not {expected.shape}")
        share = float(np.abs(actual - expected).max()) / float(np.abs(expected).max())
        if not share <= MAX_DIFFERENCE:  # NaN is not good either
            raise ExportError(
                f"{path.name} gives other embeddings than the student: they differ by {share:.2g} of the "
                f"largest value in a batch of {count}, and {MAX_DIFFERENCE:g} is allowed"
            )
        largest = max(largest, share)
    return largest


@contextmanager
def quiet_exporter(path: Path) -> Iterator[None]:
    """Silence an exporter's warnings and log lines; turn what it raises into an `ExportError`.

    Raises:
        ExportError: the exporter cannot do this student.
    """
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ExportError, OSError):
        raise
    except Exception as error:  # exporters raise errors of many kinds, none of them documented
        raise ExportError(
            f"the student cannot be written as {path.name} ({type(error).__name__}: {first_line(error)}). The timm "
            "format does without"
        ) from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def example(encoder: Encoder) -> tuple[torch.Tensor]:
    """The input that an exporter traces: two patches, since exporters take a batch of one for a fixed size."""
    side = encoder.spec.patch_px
    return (torch.zeros((2, side, side, 3), dtype=torch.uint8),)


def free_batch() -> tuple[dict[int, object]]:
    """Tell an exporter that the first dimension of the input is free."""
    return ({0: torch.export.Dim(BATCH, min=1)},)


def write_program(encoder: Encoder, path: Path) -> float:
    """Write the student as `torch.export` saves it, load it again and compare; returns the difference (`check_file`).

    Traces of the code, with folders of this machine, are left out of the file.

    Raises:
        ExportError: it cannot be traced, or the file does not give the student's embeddings.
    """
    with quiet_exporter(path):
        program = torch.export.export(encoder, example(encoder), dynamic_shapes=free_batch())
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path)
    return check_program(encoder, path)


def check_program(encoder: Encoder, path: Path) -> float:
    """Load what `write_program` wrote and compare it with the student (`check_file`).

    Raises:
        ExportError: it does not load, or gives other embeddings.
    """
    with quiet_exporter(path):
        module = torch.export.load(path).module()

    def run(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = module(torch.from_numpy(patches)).numpy()
        return output

    return check_file(path, run, encoder)
