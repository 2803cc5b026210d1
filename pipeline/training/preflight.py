"""Preflight: what can be known of an encoder in seconds, before a run of hours.

The first readable patches of the plan, for a further teacher those that the store keeps, go through the encoder once in
float32, once in the arithmetic of the run, once one by one, and once as a whole batch. An embedding that is not finite
or of another width ends the run before anything is written; one that moves with the arithmetic or with its neighbours
in the batch is a warning. What it leaves out: the speed of the slides' disk, and what kernels take for themselves where
the device is no CUDA device.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.console import say
from pipeline.base.devices import describe_device
from pipeline.base.errors import ConfigError, EncoderError
from pipeline.base.memory import is_out_of_memory, peak_bytes
from pipeline.base.units import format_bytes
from pipeline.cohort.plan import Plan
from pipeline.disk.files import sha256_file
from pipeline.encoders.build import BuiltEncoder, Encoder
from pipeline.encoders.embed import EncoderForward
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead

NUM_PATCHES = 8
"""Patches that are looked at. Our choice: a second for a giant on a CPU core, a spread of tissue."""
MAX_READS = 64
"""Rows that are tried for them; if fewer can be read, the rest is made up. Our choice."""
MIN_COSINE = 0.999
"""Of an embedding in the run's arithmetic with that in float32, and alone with that in a batch. Our choice, as in
`verify`: bfloat16 has three digits, and a batch of another size sums in another order.
"""
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference between a patch alone and within a batch, as a share of the largest value. Our choice: about ten
roundings of the type, and room for sums in another order in float32.
"""


ALLOCATED, LIVE = "as allocated", "tensors alive at once"
"""What a batch's memory is measured as. The second leaves out what kernels take for themselves while they run."""


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        encoder, architecture, weights_sha256, num_params, width: which encoder it is; the hash is that of its state.
        file_sha256: of the file that the weights are from, as hubs publish it; `None` where there is no one file.
        device, precision, batch_size: how it is to run.
        num_patches, num_planned: patches looked at, and how many of them are the plan's; the others are made up.
        precision_cosine: smallest cosine of the run's arithmetic with float32; `None` if float32 is what it runs in.
        batch_cosine: smallest cosine of a patch alone with the same patch in a batch, in the run's arithmetic.
        batch_difference: largest absolute difference between them.
        largest: largest absolute value of an embedding, for comparison.
        batch_bytes: memory that a whole batch takes beside the weights, at its fullest moment.
        batch_measure: what that counts: `ALLOCATED` on CUDA, `LIVE` elsewhere.
        weights_bytes: memory of the weights.
    """

    encoder: str
    architecture: str
    weights_sha256: str
    file_sha256: str | None
    num_params: int
    width: int
    device: str
    precision: str
    batch_size: int
    num_patches: int
    num_planned: int
    precision_cosine: float | None
    batch_cosine: float
    batch_difference: float
    largest: float
    batch_bytes: int
    batch_measure: str
    weights_bytes: int

    def record(self) -> dict[str, Any]:
        """All of it as JSON types, with the bounds that it was held against."""
        bounds = {"min_cosine": MIN_COSINE, "tolerance": TOLERANCE[self.precision], "warnings": self.warnings()}
        return asdict(self) | bounds

    def warnings(self) -> list[str]:
        """What is doubtful, a sentence each; empty when all is well."""
        found = []
        if self.precision_cosine is not None and not self.precision_cosine >= MIN_COSINE:  # NaN is not good either
            found.append(
                f"in {self.precision} the embeddings are not those of float32: smallest cosine "
                f"{self.precision_cosine:.6f}, below {MIN_COSINE}. --precision float32 is the safe way"
            )
        bound = TOLERANCE[self.precision] * self.largest
        if not self.batch_cosine >= MIN_COSINE or not self.batch_difference <= bound:
            found.append(
                f"a patch alone and the same patch in a batch differ: cosine {self.batch_cosine:.6f} (at least "
                f"{MIN_COSINE}), largest difference {self.batch_difference:.3g} (at most {bound:.3g}). Embeddings "
                "depend on their neighbours"
            )
        return found

    def words(self) -> str:
        """What was found, in a few lines."""
        made_up = self.num_patches - self.num_planned
        patches = f"{self.num_planned} patches of the plan" + (f" and {made_up} made up" if made_up else "")
        cosine = self.precision_cosine
        against = "float32 is the reference" if cosine is None else f"{self.precision} against float32: {cosine:.6f}"
        memory = f"{format_bytes(self.batch_bytes)} ({self.batch_measure})"
        return (
            f"preflight: {self.encoder} ({self.architecture}, weights {self.weights_sha256[:12]}, "
            f"{self.num_params / 1e6:.1f} M parameters) gives {self.width} dimensions; {patches}\n"
            f"  cosines: {against}; a patch alone against in a batch: {self.batch_cosine:.6f}, largest difference "
            f"{self.batch_difference:.3g} of values up to {self.largest:.3g}\n"
            f"  memory: {format_bytes(self.weights_bytes)} of weights, a batch of {self.batch_size}: {memory}"
        )


def sample_patches(
    read: Callable[[int, NDArray[np.uint8]], PatchRead], rows: Iterable[int], patch_px: int
) -> tuple[NDArray[np.uint8], int]:
    """`NUM_PATCHES` patches, uint8 (N, P, P, 3), and how many of them are readable rows; the others are made up.

    The first `MAX_READS` of `rows` are tried. Made-up patches are noise of a fixed seed.
    """
    patches = np.random.default_rng(0).integers(0, 256, (NUM_PATCHES, patch_px, patch_px, 3), np.uint8)
    scratch, found = np.empty((patch_px, patch_px, 3), np.uint8), 0
    for row, _ in zip(rows, range(MAX_READS), strict=False):
        if found == NUM_PATCHES:
            break
        if read(row, scratch).status is Status.OK:
            patches[found] = scratch
            found += 1
    return patches, found


def _cosine(a: Tensor, b: Tensor) -> float:
    """Smallest cosine between rows of (N, D) and (N, D)."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=1).min())


def check_encoder(
    built: BuiltEncoder,
    patches: NDArray[np.uint8],
    num_planned: int,
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    dtype: str,
    file: Path | None = None,
) -> Preflight:
    """Look at an encoder that is on `device`.

    Args:
        patches: uint8 (N, P, P, 3), the first `num_planned` of them from the plan.
        dtype: type that embeddings are stored in.
        file: what the weights were read from.

    Raises:
        EncoderError: an embedding is not finite in the arithmetic or in the stored type, or of another width.
        ConfigError: the device has no room for a batch.
    """
    module, pixels = built.module, torch.from_numpy(patches).to(device)
    forward = EncoderForward(module, device, precision)
    reference = EncoderForward(module, device, "float32")(pixels).cpu()
    together = forward(pixels).cpu()
    alone = torch.cat([forward(pixels[i : i + 1]).cpu() for i in range(len(pixels))])
    for name, found in (("float32", reference), (precision, together), (precision, alone)):
        _check_output(built, found, name, dtype)
    return Preflight(
        encoder=built.spec.name,
        architecture=built.spec.architecture,
        weights_sha256=built.weights_sha256,
        file_sha256=sha256_file(file) if file else None,
        num_params=built.num_params,
        width=built.spec.width,
        device=describe_device(device),
        precision=precision,
        batch_size=batch_size,
        num_patches=len(patches),
        num_planned=num_planned,
        precision_cosine=None if precision == "float32" else _cosine(reference, together),
        batch_cosine=_cosine(alone, together),
        batch_difference=float((alone - together).abs().max()),
        largest=float(together.abs().max()),
        batch_bytes=measure_batch(module, patches.shape[1], batch_size, device, precision),
        batch_measure=ALLOCATED if device.type == "cuda" else LIVE,
        weights_bytes=sum(p.numel() * p.element_size() for p in module.parameters()),
    )


def _check_output(built: BuiltEncoder, found: Tensor, precision: str, dtype: str) -> None:
    """Refuse embeddings that no run can use.

    Raises:
        EncoderError: they are not (N, width), or not all finite.
    """
    name = built.spec.name
    if found.ndim != 2 or found.shape[1] != built.spec.width:
        raise EncoderError(f"preflight: {name} gives {tuple(found.shape)}, not (N, {built.spec.width})")
    if not bool(torch.isfinite(found).all()):
        rows = int((~torch.isfinite(found).all(dim=1)).sum())
        raise EncoderError(
            f"preflight: {rows} of {len(found)} embeddings of {name} in {precision} are not finite. Try --precision "
            "float32; if it stays so, the weights are damaged (--no-preflight goes on all the same)"
        )
    largest, limit = float(found.abs().max()), float(np.finfo(dtype).max)
    if largest > limit:
        raise EncoderError(
            f"preflight: embeddings of {name} reach {largest:.3g}, more than {dtype} holds ({limit:.3g}). Use --dtype "
            "float32 (--no-preflight goes on all the same)"
        )


def measure_batch(module: Encoder, patch_px: int, batch_size: int, device: torch.device, precision: str) -> int:
    """Bytes that a batch takes beside the weights, as `memory.peak_bytes` counts them.

    Raises:
        ConfigError: it does not fit.
    """
    held = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    try:
        batch = torch.zeros((batch_size, patch_px, patch_px, 3), dtype=torch.uint8, device=device)
        return peak_bytes(module, batch, precision) - held
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"preflight: {describe_device(device)} has no room for batches of {batch_size} patches. Give a smaller "
            "--batch-size"
        ) from None


def preflight(
    teacher: BuiltEncoder,
    read: Callable[[int, NDArray[np.uint8]], PatchRead],
    plan: Plan,
    settings: dict[str, Any],
    *,
    device: torch.device,
    file: Path | None,
) -> dict[str, Any]:
    """Look at a teacher that is on `device`, and tell the user what it gives and what is doubtful.

    Args:
        read: reads a row of the plan, from its slide or from a store.
        settings: those of the embeddings to come: precision, batch_size, dtype.
        file: what the teacher's weights were read from.

    Returns attributes for `create_store` or `open_further`: `preflight`, the record.

    Raises:
        G2LError: no run can come of it; nothing was written.
    """
    patches, num_planned = sample_patches(read, range(plan.num_rows), plan.config.patch_px)
    how = {name: settings[name] for name in ("precision", "batch_size", "dtype")}
    checked = check_encoder(teacher, patches, num_planned, device=device, file=file, **how)
    say(checked.words())
    for warning in checked.warnings():
        say(f"warning: preflight: {warning}")
    return {"preflight": checked.record()}
