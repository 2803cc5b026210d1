"""Preflight: check an encoder in seconds, before a run of hours.

Embeds the first readable patches of the plan (for a further teacher, those in the store) in float32, in the arithmetic
of the run, one by one, and measures the memory of a batch; on a CPU that of these few, scaled up, for each batch that
is computed at once. An embedding that is not finite or has the wrong width stops the run before anything is written.
One that changes with the arithmetic or with its neighbours in the batch gives a warning. Says how long the teacher will
take for what the call has to do. Left out: the speed of the disk with the slides, and, on devices other than CUDA, the
workspace of kernels.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.console import counted, say
from pipeline.base.devices import describe_device
from pipeline.base.errors import ConfigError, EncoderError
from pipeline.base.memory import is_out_of_memory, peak_bytes
from pipeline.base.outside import free_memory_bytes
from pipeline.base.units import format_bytes, format_digits, format_seconds
from pipeline.cohort.plan import Plan
from pipeline.disk.files import sha256_file
from pipeline.encoders.build import BuiltEncoder, Encoder
from pipeline.encoders.embed import EncoderForward, batches_at_once
from pipeline.encoders.forms.index import is_index
from pipeline.store.format import Status
from pipeline.store.parts.part import StorePart
from pipeline.store.patches import PatchRead
from pipeline.store.store import StoredTeacher

NUM_PATCHES = 8
"""Patches to embed. Our choice: a second for a giant on a CPU core, and some variety of tissue."""
MAX_READS = 64
"""Rows to try for them; if too few can be read, the rest are noise. Our choice."""
MIN_COSINE = 0.999
"""Smallest cosine of an embedding with the same one in float32, of one computed alone with that from a batch, and of a
row that `verify` embeds again with the stored one. Our choice: bfloat16 has three digits, and a batch of another size
sums in another order.
"""
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference between a patch alone and in a batch, as a share of the largest value. Our choice: about ten
roundings of the type, and in float32 room for sums in another order.
"""


ALLOCATED, LIVE = "as allocated", "tensors alive at once"
"""How the memory of a batch is measured. The second leaves out the workspace of kernels."""


@dataclass(frozen=True)
class Preflight:
    """Result of a preflight.

    Attributes:
        encoder, architecture, weights_sha256, num_params, width: which encoder it is; the hash is of its state dict.
        file_sha256: of the file with the weights, as hubs publish it; `None` if there is no single file.
        device, precision, batch_size: how the run will compute.
        num_patches, num_planned: patches embedded, and how many of them are the plan's; the others are noise.
        precision_cosine: smallest cosine of the run's arithmetic with float32; `None` if the run uses float32.
        batch_cosine: smallest cosine of a patch alone with the same patch in a batch, in the run's arithmetic.
        batch_difference: largest absolute difference between the two.
        largest: largest absolute value in an embedding, for comparison.
        batch_bytes: peak memory of a whole batch, without the weights.
        batch_measure: how that was measured: `ALLOCATED` on CUDA, `LIVE` elsewhere.
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
        """All of it as JSON types, with the bounds used."""
        bounds = {"min_cosine": MIN_COSINE, "tolerance": TOLERANCE[self.precision], "warnings": self.warnings()}
        return asdict(self) | bounds

    def warnings(self) -> list[str]:
        """One warning for each check that failed."""
        warnings = []
        if self.precision_cosine is not None and not self.precision_cosine >= MIN_COSINE:  # NaN fails too
            warnings.append(
                f"embeddings in {self.precision} differ from those in float32: smallest cosine "
                f"{self.precision_cosine:.6f}, below {MIN_COSINE}. To be safe, use --precision float32"
            )
        bound = TOLERANCE[self.precision] * self.largest
        if not self.batch_cosine >= MIN_COSINE or not self.batch_difference <= bound:
            warnings.append(
                f"a patch alone and the same patch in a batch differ: cosine {self.batch_cosine:.6f} (should be at "
                f"least {MIN_COSINE}), largest difference {self.batch_difference:.3g} (should be at most {bound:.3g}). "
                "Embeddings depend on the other patches of the batch"
            )
        return warnings

    def words(self, at_once: int = 1) -> str:
        """Summary for the terminal, in a few lines; `at_once` batches are computed at the same time."""
        num_noise = self.num_patches - self.num_planned
        patches = f"{self.num_planned} patches of the plan" + (f" and {num_noise} of noise" if num_noise else "")
        cosine = self.precision_cosine
        against = "float32 is the reference" if cosine is None else f"{self.precision} against float32: {cosine:.6f}"
        memory = f"{format_bytes(self.batch_bytes)} ({self.batch_measure})"
        if at_once > 1:
            memory += f", {at_once} of them at once: {format_bytes(self.batch_bytes * at_once)}"
        return (
            f"preflight: {self.encoder} ({self.architecture}, weights {self.weights_sha256[:12]}, "
            f"{self.num_params / 1e6:.1f} M parameters) gives {self.width} dimensions; {patches}\n"
            f"  cosines: {against}; patches alone against in a batch: {self.batch_cosine:.6f}, largest difference "
            f"{self.batch_difference:.3g}, largest value {self.largest:.3g}\n"
            f"  memory: {format_bytes(self.weights_bytes)} of weights, a batch of {self.batch_size}: {memory}"
        )


def read_some_patches(
    read: Callable[[int, NDArray[np.uint8]], PatchRead], rows: Iterable[int], patch_px: int
) -> tuple[NDArray[np.uint8], int]:
    """Read `NUM_PATCHES` patches, uint8 (N, P, P, 3); returns them and how many were read.

    Tries the first `MAX_READS` of `rows`. Patches that are missing are noise from a fixed seed.
    """
    patches = np.random.default_rng(0).integers(0, 256, (NUM_PATCHES, patch_px, patch_px, 3), np.uint8)
    scratch, num_read = np.empty((patch_px, patch_px, 3), np.uint8), 0
    for row, _ in zip(rows, range(MAX_READS), strict=False):
        if num_read == NUM_PATCHES:
            break
        if read(row, scratch).status is Status.OK:
            patches[num_read] = scratch
            num_read += 1
    return patches, num_read


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
    """Check an encoder that is on `device`.

    Args:
        patches: uint8 (N, P, P, 3), the first `num_planned` of them from the plan.
        dtype: type in which embeddings are stored.
        file: file that the weights were read from.

    Raises:
        EncoderError: an embedding is not finite when computed or stored, or has the wrong width.
        ConfigError: a batch does not fit on the device.
    """
    module, pixels = built.module, torch.from_numpy(patches).to(device)
    forward = EncoderForward(module, device, precision)
    reference = EncoderForward(module, device, "float32")(pixels).cpu()
    together = reference if precision == "float32" else forward(pixels).cpu()
    alone = torch.cat([forward(pixels[i : i + 1]).cpu() for i in range(len(pixels))])
    for name, embeddings in (("float32", reference), (precision, together), (precision, alone)):
        _check_output(built, embeddings, name, dtype)
    return Preflight(
        encoder=built.spec.name,
        architecture=built.spec.architecture,
        weights_sha256=built.weights_sha256,
        file_sha256=sha256_file(file) if file and not is_index(file) else None,
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


def _check_output(built: BuiltEncoder, embeddings: Tensor, precision: str, dtype: str) -> None:
    """Refuse embeddings that cannot be stored.

    Raises:
        EncoderError: they are not (N, width), not all finite, or too large for `dtype`.
    """
    name = built.spec.name
    if embeddings.ndim != 2 or embeddings.shape[1] != built.spec.width:
        raise EncoderError(f"preflight: {name} gives {tuple(embeddings.shape)}, not (N, {built.spec.width})")
    if not bool(torch.isfinite(embeddings).all()):
        rows = int((~torch.isfinite(embeddings).all(dim=1)).sum())
        raise EncoderError(
            f"preflight: {rows} of {len(embeddings)} embeddings of {name} in {precision} are not finite. Try "
            "--precision float32; if that does not help, the weights are damaged (--no-preflight skips this check)"
        )
    largest, limit = float(embeddings.abs().max()), float(np.finfo(dtype).max)
    if largest > limit:
        raise EncoderError(
            f"preflight: embeddings of {name} reach {largest:.3g}, more than {dtype} holds ({limit:.3g}). Use --dtype "
            "float32 (--no-preflight skips this check)"
        )


def measure_batch(module: Encoder, patch_px: int, batch_size: int, device: torch.device, precision: str) -> int:
    """Bytes that a batch needs beyond the weights, as counted by `memory.peak_bytes`.

    On a CPU at most `NUM_PATCHES` are embedded for it, and what they need is scaled up to the batch, where a giant
    takes minutes for 32. That is never too little: tensors that do not grow with the batch are scaled as well.

    Raises:
        ConfigError: it does not fit, on a CPU as often as it computes batches at once.
    """
    at_once = batches_at_once(device)
    model_bytes = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    num = min(batch_size, NUM_PATCHES) if device.type == "cpu" else batch_size
    try:
        batch = torch.zeros((num, patch_px, patch_px, 3), dtype=torch.uint8, device=device)
        needed = -(-(peak_bytes(module, batch, precision) - model_bytes) * batch_size // num)
        free = free_memory_bytes() if device.type == "cpu" else None
        if free is not None and needed * at_once > free:
            raise MemoryError
        return needed
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        batches, fewer = f"batches of {batch_size} patches", ""
        if at_once > 1:
            batches = f"the {at_once} {batches} that it computes at once"
            fewer = ", or set OMP_NUM_THREADS=1, with which it computes one at a time"
        raise ConfigError(
            f"preflight: {describe_device(device)} has no room for {batches}. Give a smaller --batch-size{fewer}"
        ) from None


def seconds_of_patch(forward: EncoderForward, patches: NDArray[np.uint8], batch_size: int) -> float:
    """Seconds a patch in a forward pass: on CUDA of a whole batch, elsewhere of `patches`, uint8 (N, P, P, 3).

    The encoder has run before.
    """
    num = batch_size if forward.device.type == "cuda" else len(patches)
    batch = torch.from_numpy(patches).to(forward.device)[torch.arange(num, device=forward.device) % len(patches)]
    started = time.monotonic()
    forward(batch).cpu()
    return (time.monotonic() - started) / num


@dataclass(frozen=True)
class TeacherWork:
    """What a teacher has to embed in a call.

    Attributes:
        num_planned: rows of the plan.
        num_rows: those of them to do here; each has `num_views` views at once.
        num_rounds, num_rows_of_rounds: rounds of views to make after that, and their rows that are not done, of all
            rounds together.
    """

    num_planned: int
    num_rows: int
    num_views: int = 1
    num_rounds: int = 0
    num_rows_of_rounds: int = 0

    @classmethod
    def left(
        cls,
        num_planned: int,
        settings: Mapping[str, Any],
        begun: StoredTeacher | None,
        part: StorePart | None,
        views: int,
    ) -> Self:
        """What is left of a plan of so many rows.

        Args:
            settings: the run's; they say how many views are made at once.
            begun: what is there; `None`: nothing.
            part: the part of the plan that is to be done; `None`: all.
            views: how many there will be, those of rounds among them.

        Raises:
            ConfigError: there are fewer shards than parts.
            StoreError: an entry of a ledger, or a round, is damaged.
        """
        at_once = settings.get("views", 1)
        rows = part.rows(num_planned, settings["rows_per_shard"]) if part else range(num_planned)
        rounds = [begun.round(view) if begun else None for view in range(at_once, views)]
        of_rounds = [num_planned if made is None else made.num_rows_pending for made in rounds]
        return cls(
            num_planned,
            len(rows) if begun is None else begun.num_rows_pending,
            at_once,
            sum(num > 0 for num in of_rounds),
            sum(of_rounds),
        )

    @property
    def num_patches(self) -> int:
        """Forward passes of a patch, or of a view of it."""
        return self.num_rows * self.num_views + self.num_rows_of_rounds

    def words(self) -> str:
        """Of what a time is; after "for"."""
        rows = counted(self.num_planned, "row")
        if self.num_rows < self.num_planned:
            rows = f"{self.num_rows:,} of {rows}"
        views = f" and {self.num_views} views of each" if self.num_views > 1 else ""
        if not self.num_rounds:
            return f"{rows}{views}"
        return f"{rows}{views}, then for {self.num_rows_of_rounds:,} in {counted(self.num_rounds, 'round')} of views"


def teacher_estimate(patch_seconds: float, work: TeacherWork) -> str:
    """How long the teacher alone takes for its work, in a sentence."""
    return (
        f"estimate: the teacher alone takes about {format_seconds(work.num_patches * patch_seconds)} for "
        f"{work.words()} ({format_digits(patch_seconds * 1000)} ms a patch, measured now); reading goes on beside it"
    )


def preflight(
    teacher: BuiltEncoder,
    read: Callable[[int, NDArray[np.uint8]], PatchRead],
    plan: Plan,
    settings: dict[str, Any],
    work: TeacherWork,
    *,
    device: torch.device,
    file: Path | None,
) -> dict[str, Any]:
    """Check a teacher that is on `device`; show the results and warnings.

    Args:
        read: reads a row of the plan, from its slide or from a store.
        settings: settings of the run: precision, batch_size, dtype.
        work: what the run will embed.
        file: file that the teacher's weights were read from.

    Says how long the teacher alone will take. Returns attributes for `create_store` or `open_further`: `preflight`,
    the record.

    Raises:
        G2LError: the teacher cannot be used; nothing was written.
    """
    patches, num_planned = read_some_patches(read, range(plan.num_rows), plan.config.patch_px)
    compute = {name: settings[name] for name in ("precision", "batch_size", "dtype")}
    checked = check_encoder(teacher, patches, num_planned, device=device, file=file, **compute)
    say(checked.words(batches_at_once(device)))
    each = seconds_of_patch(EncoderForward(teacher.module, device, settings["precision"]), patches, checked.batch_size)
    say(teacher_estimate(each, work))
    for warning in checked.warnings():
        say(f"warning: preflight: {warning}")
    return {"preflight": checked.record()}
