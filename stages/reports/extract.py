"""Report of stage one; without torch."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.base.console import counted
from pipeline.base.units import format_bytes, format_seconds
from pipeline.store.format import Status
from pipeline.store.store import Store, StoredTeacher

if TYPE_CHECKING:
    from pipeline.store.parts.merge import Merged  # what reads slides and checks patches, which `inspect` does not need

MOST_DROPPED = 0.5
"""Share of a slide's patches that `--patch-qc` may drop without a warning. Our choice: on slides that we inspected it
drops up to a tenth."""
LEAST_DROPPED = 10
"""And the patches of it from which there is one. Our choice: of a few patches most is soon dropped."""
MOST_TOLD = 10
"""Slides that a warning names. Our choice: a few lines; `dropped.csv` has all."""


@dataclass(frozen=True)
class Extracted:
    """Result of stage one.

    Attributes:
        teacher: the finished embeddings.
        num_new_rows: rows done by this run.
        counts: rows by status name, over all shards.
        seconds: time of this run's extraction, without loading the teacher.
    """

    teacher: StoredTeacher
    num_new_rows: int
    counts: dict[str, int]
    seconds: float

    @property
    def store(self) -> Store:
        """The store that the embeddings are in."""
        return self.teacher.store

    @property
    def num_failed(self) -> int:
        """Rows without an embedding, of views in rounds as well; those that `--patch-qc` dropped are none."""
        of_rounds = [made.ledger.status_counts() for made in self.teacher.rounds]
        return sum(_failed(counts) for counts in (self.counts, *of_rounds))


def _failed(counts: dict[str, int]) -> int:
    """How many rows have no embedding, but for those that `--patch-qc` dropped."""
    return sum(count for name, count in counts.items() if is_failure(name))


def is_failure(name: str) -> bool:
    """Whether a status, by its name, is that of a row which should have an embedding and has none."""
    return name != Status.OK.name and not Status[name].is_dropped


def failed_words(counts: dict[str, int]) -> str:
    """How many rows failed, by status; "" if none."""
    return ", ".join(f"{n:,} {name.lower()}" for name, n in counts.items() if n and is_failure(name))


def failed_advice(counts: dict[str, int]) -> str:
    """What can be done about rows that failed, by status name: those of places without pixels fail again."""
    num_empty = counts.get(Status.EMPTY.name, 0)
    advice = ["--retry-failures tries them again"] if _failed(counts) > num_empty else []
    if num_empty:
        advice.append("Where it is empty, the slide's file has no pixels: nothing helps but another file")
    return ". ".join(advice)


def dropped_words(teacher: StoredTeacher, counts: dict[str, int]) -> str:
    """How many rows `--patch-qc` dropped, by reason, or "none"; "" if patches were not checked."""
    words = ", ".join(f"{n:,} {Status[name].words}" for name, n in counts.items() if n and Status[name].is_dropped)
    return words or ("none" if "patch_qc" in teacher.settings else "")


def dropped_lines(teacher: StoredTeacher, counts: dict[str, int]) -> list[str]:
    """The report's lines of the rows that `--patch-qc` dropped; none if patches were not checked."""
    words = dropped_words(teacher, counts)
    if words in ("", "none"):
        return [f"rows dropped by --patch-qc: {words}"] if words else []
    total = f"rows dropped by --patch-qc: {words}; listed in {teacher.folder / 'dropped.csv'}"
    return [total, *_mostly_dropped(teacher)]


def _mostly_dropped(teacher: StoredTeacher) -> list[str]:
    """A warning of slides that `--patch-qc` dropped most patches of, if there are any: a stain or a soft scan may have
    been taken for what it is not.
    """
    sizes = {slide.slide_id: len(slide.split) for slide in teacher.plan.slides}
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for record in teacher.ledger.dropped():
        reasons[record["slide_id"]][Status[record["status"]].words] += 1
    is_much = {slide: of.total() > max(MOST_DROPPED * sizes[slide], LEAST_DROPPED - 1) for slide, of in reasons.items()}
    much = {slide: reasons[slide] for slide in sorted(reasons) if is_much[slide]}
    if not much:
        return []
    named = [
        f"{slide} ({of.total():,} of {sizes[slide]:,}, most for {of.most_common(1)[0][0]})"
        for slide, of in list(much.items())[:MOST_TOLD]
    ]
    more = f" and {len(much) - MOST_TOLD:,} more" if len(much) > MOST_TOLD else ""
    return [
        f"warning: --patch-qc dropped most patches of {counted(len(much), 'slide')}: {', '.join(named)}{more}. Look at "
        "these slides: if they are sound, a store without --patch-qc keeps them"
    ]


def extract_report(extracted: Extracted) -> str:
    """Report for the terminal."""
    teacher = extracted.teacher
    rounds = teacher.rounds
    shape = f"{teacher.num_rows_here:,} rows of {teacher.width} dimensions in {counted(len(teacher.shards), 'shard')}"
    part = f", part {teacher.part} of a store" if teacher.part else ""
    lines = [f"{teacher.folder}: {shape}, {format_bytes(teacher.ledger.num_bytes())}{part}"]
    if rounds:
        first, last = rounds[0].own_view, rounds[-1].own_view
        views = f"view {first}" if first == last else f"views {first} to {last}"
        lines.append(f"{views} in rounds, {format_bytes(sum(made.ledger.num_bytes() for made in rounds))}")
    if extracted.num_new_rows:
        rate = extracted.num_new_rows / max(extracted.seconds, 1e-9)
        rows = counted(extracted.num_new_rows, "row")
        lines.append(f"{rows} in {format_seconds(extracted.seconds)}, {rate:.1f} a second")
    else:
        lines.append("nothing was left to do")
    for each, counts in ((teacher, extracted.counts), *((made, made.ledger.status_counts()) for made in rounds)):
        if failed := failed_words(counts):
            lines.append(f"failed rows: {failed}; listed in {each.folder / 'failures.csv'}. {failed_advice(counts)}")
    return "\n".join([*lines, *dropped_lines(teacher, extracted.counts)])


def merge_report(merged: "Merged") -> str:
    """Report of a merge for the terminal."""
    teacher, counts = merged.teacher, merged.teacher.ledger.status_counts()
    num_failed = _failed(counts)
    shape = f"{teacher.num_rows:,} rows of {teacher.width} dimensions in {counted(teacher.num_shards, 'shard')}"
    lines = [f"{teacher.folder}: {shape}"]
    if merged.num_before:
        lines.append(f"merged before: {counted(merged.num_before, 'shard')}")
    lines.append(f"files linked: {merged.num_linked:,}, copied: {merged.num_copied:,}; every shard file was checked")
    if num_failed:
        lines.append(f"failed rows: {num_failed:,}; listed in {teacher.folder / 'failures.csv'}")
    return "\n".join([*lines, *dropped_lines(teacher, counts)])


def import_report(imported: Extracted) -> str:
    """Report of an import for the terminal."""
    proof = imported.teacher.attributes.get("proof")
    lines = [extract_report(imported)]
    embedded = counted(proof["rows"], "patch that was", "patches that were") if proof else ""
    lines.append(f"proven on {embedded} embedded again" if proof else "not proven: see --weights")
    return "\n".join(lines)
