"""Describe the candidates of `plan --sample cluster` by an encoder (`--sampler-encoder`), not by colour and texture.

All slides are audited first; then their candidates are read once more and embedded, slide by slide. What a slide's
candidates look like does not depend on other slides, on the number of reading threads or of cores: batches are of one
slide and of one size, each is computed by one thread of a CPU, and always in float32. Memory is a ring of batches and
`NUM_PROJECTED` numbers of 2 bytes for each candidate. Left out: keeping anything of it for the next call.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import Progress, say
from pipeline.base.devices import choose_device, keep_freed_memory
from pipeline.base.errors import ConfigError, SlideError
from pipeline.base.loader import ReadRows
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.candidates import NONE_READABLE, DescribedPool, unread_words
from pipeline.cohort.object_slides import copy_to_audit
from pipeline.cohort.plan import PlannedSlides, SlidePlan
from pipeline.config.model_names import SCRATCH
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.embed import MOST_AT_ONCE, EncoderForward, batches_at_once, read_and_embed
from pipeline.encoders.projected import NUM_PROJECTED, ProjectedEncoder, as_facts
from pipeline.encoders.table import ENCODERS
from pipeline.slides.staging.ahead import KnownCopy, Staging
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches
from pipeline.student.resolve import name_model

BATCH: Final = 32
"""Patches a forward pass, on every device. Our choice: what a CPU takes (decision 0066); a size that followed the free
memory of a GPU would give other last digits, and so another plan.
"""
OPTION: Final = "--sampler-encoder"


@dataclass(frozen=True, eq=False)
class EncoderSampler:
    """An encoder that describes candidates.

    Attributes:
        name: what it is, for the plan: the encoder and the SHA-256 of its weights.
        module: encoder and projection, on `device`.
        patch_px: side of what it takes.
        workers: threads that read patches.
    """

    name: str
    module: ProjectedEncoder
    device: torch.device
    patch_px: int
    workers: int

    def describe(
        self, slides: Sequence[SlidePlan], audit: Sequence[AuditRow], slides_root: Path, staging: Staging
    ) -> DescribedPool:
        """Embed the candidates of slides; those that cannot be read are passed over, and the audit says so. Slides in a
        bucket are read from the copies of `staging`.

        Raises:
            ConfigError: the device has too little memory for a batch.
            EncoderError: the encoder gives NaN.
        """
        kept, facts, rows = list[SlidePlan](), dict[str, NDArray[np.uint16]](), {row.slide_id: row for row in audit}
        with Progress("embedding candidates", sum(len(part.split) for part in slides), "patches") as progress:
            for part in slides:
                row = rows[part.slide_id]
                try:
                    found, readable = self._embed_slide(part, slides_root, staging, progress.step)
                except SlideError as error:
                    rows[part.slide_id] = failed_row(row, str(error))
                    continue
                if not readable.any():
                    rows[part.slide_id] = failed_row(row, NONE_READABLE)
                    continue
                kept.append(part.take(readable))
                facts[part.slide_id] = found
                rows[part.slide_id] = row.with_warning(unread_words(readable))
        return DescribedPool(kept, [rows[row.slide_id] for row in audit], facts)

    def _embed_slide(
        self, part: SlidePlan, slides_root: Path, staging: Staging, on_batch: Callable[[int], object]
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """`embed` of a slide's candidates; the slide is closed at the end.

        Raises:
            SlideError: it cannot be read, or not be copied.
            ConfigError, EncoderError: as `describe`.
        """
        path = PlannedSlides((part,), slides_root).slide_path(part)
        with copy_to_audit(path, staging) as (copy, why):
            if why:
                raise SlideError(why)
            return self.embed(self._reader(part, slides_root, copy), len(part.split), on_batch)

    def embed(
        self, read: ReadRows[bool], num: int, on_batch: Callable[[int], object]
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Describe `num` patches: uint16 (M, D) of those that could be read, and which these are, bool (N,).

        Args:
            read: reads patches by number; returns of each whether it could.
            on_batch: gets how many more are done.

        Raises:
            ConfigError, EncoderError: as `describe`.
        """
        facts, readable, done = np.empty((num, NUM_PROJECTED), np.uint16), np.zeros(num, bool), 0
        with (
            _reproducible(),
            read_and_embed(
                EncoderForward(self.module, self.device, "float32"),
                read,
                [range(start, min(start + BATCH, num)) for start in range(0, num, BATCH)],
                self.device,
                patch_px=self.patch_px,
                batch_size=min(BATCH, num),
                workers=self.workers,
                width=NUM_PROJECTED,
                no_room=f"Give a smaller {OPTION}, or --device cpu",
                is_readable=bool,
                at_once=batches_at_once(self.device),
            ) as batches,
        ):
            for embedded in batches:
                found = as_facts(embedded.embeddings.numpy(), self.name)
                facts[done : done + len(found)] = found
                readable[list(embedded.rows)] = embedded.results
                done += len(found)
                on_batch(len(embedded.rows))
        return facts[:done], readable

    def _reader(self, part: SlidePlan, slides_root: Path, copy: Path | None) -> ReadRows[bool]:
        """Reads patches of a slide, or of its copy, for `embed`: of a tile the middle, as the teacher will see it."""
        slides, side = PlannedSlides((part,), slides_root), part.geometry.patch_px
        patches = PlannedPatches(slides, None, tell=say, copies=KnownCopy(copy))
        start = (side - self.patch_px) // 2
        middle = slice(start, start + self.patch_px)

        def read(rows: Sequence[int], out: NDArray[np.uint8]) -> list[bool]:
            tiles = out if side == self.patch_px else np.empty((len(rows), side, side, 3), np.uint8)
            results = patches.read_some(rows, tiles)
            for result in results:
                if result.status is Status.NO_SLIDE:
                    raise SlideError(result.reason)
            if tiles is not out:
                out[:] = tiles[:, middle, middle]
            return [result.status is Status.OK for result in results]

        return read


def build_sampler(text: str, patch_px: int, device_name: str, workers: int) -> EncoderSampler:
    """The encoder that `--sampler-encoder` names in `text`, on its device.

    Raises:
        ConfigError: there is no such model or device, or it takes patches of another size.
        EncoderError: its weights are missing or do not fit.
    """
    named = name_model(text, patch_px, option=OPTION)
    if named.weights == SCRATCH:
        raise ConfigError(f"{OPTION} {text}: random weights tell no tissue apart. Name weights: NAME@FILE")
    if named.patch_px != patch_px:
        raise ConfigError(f"{OPTION} {text} takes patches of {named.patch_px} px, not of --patch-px {patch_px}")
    device = choose_device(device_name)
    keep_freed_memory()
    built = named.build()
    for note in filter(None, (named.note, built.note)):
        say(f"note: {note}")
    return encoder_sampler(built, patch_px, device, workers)


def encoder_sampler(built: BuiltEncoder, patch_px: int, device: torch.device, workers: int) -> EncoderSampler:
    """A sampler of an encoder that has been built."""
    module = ProjectedEncoder(built.module, built.spec.width).to(device).eval()
    known_as = built.spec.name if built.spec.name in ENCODERS else built.spec.architecture
    return EncoderSampler(f"{known_as}@sha256:{built.weights_sha256}", module, device, patch_px, workers)


def failed_row(row: AuditRow, reason: str) -> AuditRow:
    """The audit row of a slide of which no candidate can be used."""
    return replace(row, status="failed", patches_taken=0, split="").with_reason(reason)


@contextmanager
def _reproducible() -> Iterator[None]:
    """Have torch use no more threads than batches are computed at once, so that each batch has one thread and its last
    digits do not depend on the number of cores; and on a GPU only convolutions that give the same digits again.
    """
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(min(threads, MOST_AT_ONCE))
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic
