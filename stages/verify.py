"""Verify a store: check the metadata, the ledger and every checksum, and embed a sample of rows again."""

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline.base.console import Progress, counted, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_device, keep_freed_memory
from pipeline.base.draws import RunDraws
from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, EncoderError
from pipeline.base.loader import one_by_one
from pipeline.config.model_names import recorded_encoder
from pipeline.config.staging import StageFolder
from pipeline.disk.raw_arrays import METADATA
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import embed_rows
from pipeline.store.check import check_metadata, check_shard
from pipeline.store.remote.opening import open_store
from pipeline.store.repeats.same_fields import find_same_fields, same_field_words
from pipeline.store.shards import LocalShards
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import continued_with
from pipeline.student.weights_place import noted_place, remembered_weights
from pipeline.training.preflight import MIN_COSINE
from pipeline.training.rows.order import row_keys, row_views
from pipeline.training.rows.reading import StoredRows

FINISH_AND_COPY = "finish the store in the folder where it is made, and copy it to the bucket again"
COPY_FROM_ORIGINAL = (
    "run `g2l verify` on the folder where the store was made: the damage may be there as well. If that is sound, copy "
    "the damaged files from it to the bucket again, shard files first, shards/<i>.json last (docs/scale.md)"
)


@dataclass(frozen=True)
class Difference:
    """How rows that were embedded again differ from the stored ones.

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

    def words(self, how: str = "") -> str:
        """The difference in a line; `how` the rows were embedded again follows their number."""
        return (
            f"{counted(self.rows, 'row')} embedded again{how}: largest difference {self.largest:.3g} of values up to "
            f"{self.scale:.3g}, smallest cosine {self.min_cosine:.6f}"
        )


def verify_store(
    folder: Path,
    weights: Path | None,
    sample: int,
    device_name: str,
    slides_root: Path | None = None,
    teacher: str | None = None,
    stage: StageFolder | None = None,
) -> tuple[str, int]:
    """Check the store with the embeddings of all its teachers; returns the findings, in words, and the exit code: 0
    all is well, 1 damaged, 3 nothing is damaged, but some shards are not done yet, or no row was embedded again because
    the teacher's weights are not where they were.

    Args:
        weights: the teacher's, `None` for those that the store names or remembers.
        sample: rows to embed again, 0 for none.
        slides_root: where the slides are now, for a store without pixels.
        teacher: the one whose rows are embedded again, `None` for the store's first.
        stage: where files of a store in a bucket may lie meanwhile.

    Raises:
        G2LError: no store, or the teacher or a slide cannot be had, or the bucket.
    """
    with open_store(folder, stage, tell=say) as store:
        return verify_opened(store, weights, sample, device_name, slides_root, teacher)


def verify_opened(
    store: Store,
    weights: Path | None,
    sample: int,
    device_name: str,
    slides_root: Path | None = None,
    teacher: str | None = None,
) -> tuple[str, int]:
    """`verify_store` of an open one."""
    sampled = store.teacher(teacher)
    checks = [check_stored_teacher(each) for each in store.all_embeddings]
    lines = [line for check in checks for line in check.words()]
    if any(check.problems for check in checks):
        return "\n".join(lines), EXIT_ERROR
    code = EXIT_PARTIAL if any(check.num_pending for check in checks) else EXIT_OK
    if isinstance(store.files, LocalShards):  # all images of a store in a bucket would be fetched again
        lines += same_field_words(store, find_same_fields(store))
    if sample and len(sampled.ledger.pending()) < sampled.num_shards:
        by = f" by {teacher}" if teacher else ""
        words, sample_code = verify_sample(sampled, weights, sample, device_name, slides_root, by)
        lines, code = [*lines, *words], sample_code or code
    return "\n".join(lines), code


@dataclass(frozen=True)
class TeacherCheck:
    """What a check of one teacher's metadata and files has found.

    Attributes:
        teacher: which one.
        problems: what is damaged.
        is_described: whether the metadata are right; otherwise what the files hold was not compared.
        num_pending: shards that are not done.
    """

    teacher: StoredTeacher
    problems: list[str]
    is_described: bool
    num_pending: int

    def words(self) -> list[str]:
        """The findings, and what to do about them; a line each."""
        teacher, command = self.teacher, continued_with(self.teacher)
        of_part = f"part {teacher.part}: " if teacher.part else ""
        name, place = (of_part, "") if teacher.is_first else (f"further teacher {teacher.name}: ", f"{teacher.place}: ")
        name = f"view {teacher.own_view} of {teacher.name}: " if teacher.own_view else name
        headline = _headline(len(teacher.shards), self.num_pending, bool(self.problems))
        lines = [f"{name}{headline}", *(f"  {problem}" for problem in self.problems)]
        is_local = isinstance(teacher.store.files, LocalShards)
        if self.num_pending:
            pending = f"{counted(self.num_pending, 'shard')} pending"
            lines.append(f"{pending}: {f'run {command} again to continue' if is_local else FINISH_AND_COPY}")
        if self.problems and not is_local:
            lines.append(COPY_FROM_ORIGINAL)
        elif self.problems:
            lines.append(
                f"{place}delete shards/<i>.json of the damaged shards and run {command} again: only they are done again"
                if self.is_described
                else f"{place}the store's metadata are damaged: take zarr.json from a copy, or make the store again"
            )
        return lines


def check_stored_teacher(teacher: StoredTeacher) -> TeacherCheck:
    """Check the metadata, the ledger and every file of a teacher."""
    problems = check_metadata(teacher)
    is_described, num_pending = not problems, 0
    with Progress("checking", len(teacher.shards), "shards") as progress:
        for shard in teacher.shards:
            wrong = check_shard(teacher, shard, content=is_described)
            num_pending += wrong is None
            problems += wrong or []
            progress.note(damaged=len(problems))
            progress.step()
    return TeacherCheck(teacher, problems, is_described, num_pending)


def _headline(num_shards: int, pending: int, damaged: bool) -> str:
    """How many shards there are, and how they are."""
    done = num_shards - pending
    if damaged:
        return f"{done:,} of {num_shards:,} shards are done: DAMAGED"
    if not pending:
        return f"{done:,} of {num_shards:,} shards: all files are as written"
    return f"{done:,} of {num_shards:,} shards are done" + (", and their files are as written" if done else "")


def verify_sample(
    teacher: StoredTeacher,
    weights: Path | None,
    sample: int,
    device_name: str,
    slides_root: Path | None = None,
    by: str = "",
) -> tuple[list[str], int]:
    """Embed some rows again, if the teacher's weights can be had; returns the findings, a line each, and the exit code.

    Args:
        weights: those that the user has given; `None` for those that the store names or remembers.
        by: whom the rows were embedded by, where the findings are to say so.

    Raises:
        G2LError: the teacher of the given weights, or a slide, cannot be had.
    """
    if weights is None and not teacher.record["weights_sha256"]:  # imported without them
        return ["no row embedded again: the teacher's weights are not known; give --weights"], EXIT_OK
    source = weights or remembered_weights(teacher)
    if source is None:
        place = noted_place(teacher)
        return [
            f"no row embedded again: the teacher's weights came from {place}, where they are not now. Say with "
            "--weights FILE where they are, or leave it out with --sample 0"
        ], EXIT_PARTIAL
    try:
        difference = embed_again(teacher, source, sample, device_name, slides_root)
    except EncoderError as error:
        if weights is not None:
            raise
        return [f"no row embedded again: {error}"], EXIT_PARTIAL
    if difference is None:
        return ["no row to embed again"], EXIT_OK
    num_views = teacher.views_at_hand.count
    of_views = f", one of {num_views} views of each" if num_views > 1 else ""
    lines = [difference.words(f"{by}{of_views}")]
    bound = teacher.settings.get("imported", {}).get("options", {}).get("min_cosine", MIN_COSINE)
    if difference.min_cosine >= bound:
        return lines, EXIT_OK
    return [*lines, f"NOT the same embeddings: a cosine below {bound}"], EXIT_ERROR  # NaN is not good either


def embed_again(
    teacher: StoredTeacher, weights: str | Path, sample: int, device_name: str, slides_root: Path | None = None
) -> Difference | None:
    """Embed up to `sample` rows, chosen by a hash, from their stored pixels; `None` if there is no row.

    Of several views, one of each row, also by a hash.

    A store without pixels is read from its slides, below `slides_root` if that is given.

    Raises:
        EncoderError: the teacher cannot be had, or has other weights than the store's.
        StoreError: a row cannot be read.
    """
    seen = teacher.views_at_hand
    rounds = teacher.rounds[: seen.count - teacher.views.count]
    rows = reduce(np.intersect1d, [made.ok_rows() for made in (teacher, *rounds)])
    chosen = np.sort(rows[np.argsort(row_keys(rows, 0, 0, "verify"), kind="stable")[:sample]])
    if not len(chosen):
        return None
    device = choose_device(device_name)
    keep_freed_memory()
    encoder = build_encoder(recorded_encoder(teacher.name, teacher.folder / METADATA), weights, teacher.patch_px)
    if encoder.note:
        say(encoder.note)
    digest, expected = encoder.weights_sha256, teacher.record["weights_sha256"]
    if expected not in ("", digest):
        raise EncoderError(
            f"{weights}: these are not the weights of the store's teacher: SHA-256 {digest[:12]}, not "
            f"{expected[:12]}. Say with --weights FILE where those are"
        )
    encoder.module.to(device)
    source = StoredRows([teacher], slides_root=slides_root, views=seen, tell=say)
    views = dict(zip(chosen.tolist(), row_views(chosen, seen, RunDraws(0), 0).tolist(), strict=True))
    stored: dict[int, NDArray[np.float32]] = {}

    def read(row: int, out: NDArray[np.uint8]) -> None:
        stored[row] = source.read(row, out, views[row])

    again = embed_rows(
        encoder.module,
        one_by_one(read),
        chosen.tolist(),
        patch_px=teacher.patch_px,
        batch_size=teacher.settings["batch_size"],
        workers=usable_cores(),
        device=device,
        precision=teacher.settings["precision"],
        what="embedding again",
        no_room="Choose another --device",
        ahead=source.read_ahead,
    )
    before, after = torch.from_numpy(np.stack([stored[row] for row in chosen.tolist()])), torch.from_numpy(again)
    return Difference(
        rows=len(chosen),
        largest=float((before - after).abs().max()),
        scale=float(before.abs().max()),
        min_cosine=float(F.cosine_similarity(before.double(), after.double(), dim=1).min()),
    )
