"""Verify a store: metadata, ledger and every checksum again, and a sample of rows through the teacher again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline.base.console import Progress, counted
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_device, keep_freed_memory
from pipeline.base.draws import RunDraws
from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, EncoderError, StoreError
from pipeline.base.loader import BatchLoader
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import EncoderForward, embed_batches
from pipeline.store.check import check_metadata, check_shard
from pipeline.store.store import Store
from pipeline.store.teachers import all_teachers, find_teacher, made_with
from pipeline.student.teacher_weights import noted_place, remembered_weights
from pipeline.training.rows import StoredRows, row_keys, row_views

MIN_COSINE = 0.999
"""A row embedded again must be this near to the stored one: bfloat16 has three digits, and a batch of another size sums
in another order. Our choice.
"""


@dataclass(frozen=True)
class Difference:
    """A sample of rows, embedded again.

    Attributes:
        rows: how many.
        largest: largest absolute difference of a value.
        scale: largest absolute value, for comparison.
        min_cosine: smallest cosine of a row with its stored embedding.
    """

    rows: int
    largest: float
    scale: float
    min_cosine: float


def verify_store(
    folder: Path,
    weights: Path | None,
    sample: int,
    device_name: str,
    slides_root: Path | None = None,
    teacher: str | None = None,
) -> tuple[str, int]:
    """Check the store with the embeddings of all its teachers; returns what was found, in words, and the exit code: 0
    all is well, 1 damaged, 3 nothing is damaged, but some shards are not done yet, or no row was embedded again because
    the teacher's weights are not where they were.

    Args:
        weights: the teacher's, `None` for those that the store names or remembers.
        sample: rows to embed again, 0 for none.
        slides_root: where the slides are now, for a store without pixels.
        teacher: the one whose rows are embedded again, `None` for the store's first.

    Raises:
        G2LError: no store, or the teacher or a slide cannot be had.
    """
    store = Store(folder)
    asked = find_teacher(store, teacher) if teacher else store
    lines, damaged, pending = [], False, 0
    for name, each in all_teachers(store).items():
        problems, its_pending, words = _check(each)
        further = each.base is not each
        lines += [f"further teacher {name}: {words[0]}", *words[1:]] if further else words
        damaged, pending = damaged or bool(problems), pending + its_pending
    if damaged:
        return "\n".join(lines), EXIT_ERROR
    code = EXIT_PARTIAL if pending else EXIT_OK
    if not sample or len(asked.pending_shards()) == asked.num_shards:
        return "\n".join(lines), code
    if weights is None and not asked.spec.teacher["weights_sha256"]:  # imported without them
        return "\n".join([*lines, "no row embedded again: the teacher's weights are not known; give --weights"]), code
    source = weights or remembered_weights(asked)
    if source is None:
        lines.append(f"no row embedded again: the teacher's weights came from {noted_place(asked)}, where they are not "
                     "now. Say with --weights FILE where they are, or leave it out with --sample 0")  # fmt: skip
        return "\n".join(lines), EXIT_PARTIAL
    try:
        difference = embed_again(asked, source, sample, device_name, slides_root)
    except EncoderError as error:
        if weights is not None:
            raise
        return "\n".join([*lines, f"no row embedded again: {error}"]), EXIT_PARTIAL
    if difference is None:
        return "\n".join([*lines, "no row to embed again"]), code
    by = f" by {teacher}" if teacher else ""
    by += f", one of {asked.views.count} views of each" if asked.views.count > 1 else ""
    lines.append(
        f"{difference.rows} rows embedded again{by}: largest difference {difference.largest:.3g} of values up to "
        f"{difference.scale:.3g}, smallest cosine {difference.min_cosine:.6f}"
    )
    bound = asked.spec.settings.get("imported", {}).get("options", {}).get("min_cosine", MIN_COSINE)
    if not difference.min_cosine >= bound:  # NaN is not good either
        lines.append(f"NOT the same embeddings: a cosine below {bound}")
        code = EXIT_ERROR
    return "\n".join(lines), code


def _check(store: Store) -> tuple[list[str], int, list[str]]:
    """The problems of one teacher's metadata and files, its number of pending shards, and both in words."""
    problems = check_metadata(store)
    content, pending = not problems, 0
    with Progress("checking", store.num_shards, "shards") as progress:
        for shard in range(store.num_shards):
            found = check_shard(store, shard, content=content)
            pending += found is None
            problems += found or []
            progress.note(damaged=len(problems))
            progress.step()
    lines = [_headline(store.num_shards, pending, bool(problems)), *(f"  {problem}" for problem in problems)]
    if pending:
        lines.append(f"{counted(pending, 'shard')} pending: run {made_with(store)} again to continue")
    if problems:
        where = f"{store.folder}: " if store.base is not store else ""
        lines.append(
            f"{where}delete shards/<i>.json of the damaged shards and run {made_with(store)} again: only they are "
            "done again"
            if content
            else f"{where}the store's metadata are damaged: take zarr.json from a copy, or make the store again"
        )
    return problems, pending, lines


def _headline(num_shards: int, pending: int, damaged: bool) -> str:
    """How many shards there are, and how they are."""
    done = num_shards - pending
    if damaged:
        return f"{done:,} of {num_shards:,} shards are done: DAMAGED"
    if not pending:
        return f"{done:,} of {num_shards:,} shards: all files are as written"
    return f"{done:,} of {num_shards:,} shards are done" + (", and their files are as written" if done else "")


def embed_again(
    store: Store, weights: str | Path, sample: int, device_name: str, slides_root: Path | None = None
) -> Difference | None:
    """Embed up to `sample` rows, chosen by a hash, from their stored pixels; `None` if there is no row.

    Of several views, one of each row, also by a hash.

    A store without pixels is read from its slides, below `slides_root` if that is given.

    Raises:
        EncoderError: the teacher cannot be had, or has other weights than the store's.
        StoreError: a row cannot be read.
    """
    record = store.spec.teacher
    rows = store.ok_rows()
    chosen = np.sort(rows[np.argsort(row_keys(rows, 0, 0, "verify"), kind="stable")[:sample]])
    if not len(chosen):
        return None
    device = choose_device(device_name)
    keep_freed_memory(device)
    teacher = build_encoder(record["name"], weights, store.patch_px)
    if record["weights_sha256"] not in ("", teacher.weights_sha256):
        found, expected = teacher.weights_sha256[:12], record["weights_sha256"][:12]
        raise EncoderError(f"{weights}: these are not the weights of the store's teacher: SHA-256 {found}, not "
                           f"{expected}. Say with --weights FILE where those are")  # fmt: skip
    teacher.module.to(device)
    batch_size = min(store.spec.settings["batch_size"], len(chosen))
    stored: list[NDArray[np.float32]] = []
    again: list[torch.Tensor] = []
    source = StoredRows(store, slides_root, views=store.views)
    views = dict(zip(chosen.tolist(), row_views(chosen, store.views, RunDraws(0), 0).tolist(), strict=True))
    loader = BatchLoader(
        lambda row, out: source.read(row, out, views[row]),
        patch_px=store.patch_px,
        batch_size=batch_size,
        workers=usable_cores(),
        device=device,
    )
    with loader, Progress("embedding again", len(chosen), "rows") as progress:
        parts = (chosen[i : i + batch_size].tolist() for i in range(0, len(chosen), batch_size))
        for embedded in embed_batches(
            EncoderForward(teacher.module, device, store.spec.settings["precision"]),
            loader.batches(parts),
            device,
            width=teacher.spec.width,
            no_room="Choose another --device, or a smaller --sample",
        ):
            again.append(embedded.embeddings)
            stored += embedded.results
            progress.step(len(embedded.rows))
    if not stored:
        raise StoreError(f"{store.folder}: no row could be read")
    before, after = torch.from_numpy(np.stack(stored)), torch.cat(again)
    return Difference(
        rows=len(chosen),
        largest=float((before - after).abs().max()),
        scale=float(before.abs().max()),
        min_cosine=float(F.cosine_similarity(before.double(), after.double(), dim=1).min()),
    )
