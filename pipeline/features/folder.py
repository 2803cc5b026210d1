"""The folder that `g2l embed` writes: what made it, which slides are finished, which patches were left out.

embed.toml     the resolved options, fit for --config
embed.json     the model with its hashes, settings, batch size, versions; only the same model and settings continue it
finished.json  once every slide is done: the numbers of slides and patches, and the bytes of every file
failures.csv   slides that could not be used, and patches that were left out; absent if there are none
...            the slides' files, in the layout of another tool: `layouts`
"""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pipeline.base.console import counted
from pipeline.base.errors import EmbedError, ManifestError
from pipeline.base.outside import read_json, reading
from pipeline.base.versions import continued_note, other_versions
from pipeline.config.base import differences, to_toml
from pipeline.config.tissue_rules import EARLIER_RULES
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, write_bytes, write_json, write_text
from pipeline.disk.tables import read_table, table_text
from pipeline.features.embed_names import FAILURES_FILE, FINISHED_FILE, OPTIONS_FILE, RECORD_FILE
from pipeline.features.embedding import WHOLE_SLIDE, Failure
from pipeline.features.layouts import Mark
from pipeline.slides.geometry import PILLOW

UNSAID = {"resampling": PILLOW, "decode": "full", "rules": list(EARLIER_RULES), "max_artefact": 1}
"""What settings mean that lack a name."""
FAILURE_COLUMNS = tuple(field.name for field in fields(Failure))


class EmbedFolder:
    """An output folder of `g2l embed`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record_path = folder / RECORD_FILE
        self.failures_path = folder / FAILURES_FILE
        self._failures: dict[str, list[Failure]] = {}
        self._of_finished: dict[str, list[Failure]] = {}  # patches that earlier runs left out
        self._lines: dict[str, tuple[list[Failure], str]] = {}  # of slides in `failures.csv`, with what they say

    def require_usable(self) -> dict[str, Any] | None:
        """The record of a folder that is to be continued; `None` for a new or empty one.

        Raises:
            EmbedError: it holds something else than embeddings.
        """
        if not self.folder.exists():
            return None
        if not self.record_path.exists():
            if self.folder.is_dir() and holds_nothing(self.folder):
                return None
            raise EmbedError(
                f"{self.folder} holds something else than embeddings of g2l embed, and nothing is "
                "overwritten. Choose another --out"
            )
        with reading(self.record_path, "damaged", EmbedError):
            record = read_json(self.record_path)
            found = {name: record[name] for name in ("made_by", "batch_size")}
            if not isinstance(found["made_by"], dict) or not isinstance(found["batch_size"], int):
                raise TypeError("made_by is no record, or batch_size no number")
            found |= {"versions": dict(record.get("versions", {})), "full_float32": "full_float32" in record}
        return found

    def start_or_continue(self, record: dict[str, Any], options: dict[str, Any]) -> list[str]:
        """Write the records, or see that they are those of the folder; clear away what a killed run left half written.
        Returns notes for the user.

        Args:
            record: `made_by`, `batch_size` and what else is recorded.
            options: the resolved options.

        Raises:
            EmbedError: the folder was made by something else; says what differs.
            G2LError: it cannot be written.
        """
        old = self.require_usable()
        notes: list[str] = []
        if old is not None:
            self.require_same(self.folder, old["made_by"], record["made_by"])
            notes += filter(None, [continued_note(self.folder, old["versions"]), self._tissue_note(old["versions"])])
        make_output_folder(self.folder)
        remove_asides(self.folder)
        (self.folder / FINISHED_FILE).unlink(missing_ok=True)
        if old is None:
            write_json(self.record_path, record)
        write_text(self.folder / OPTIONS_FILE, to_toml({"embed": options}))
        return notes

    def _tissue_note(self, recorded: dict[str, str]) -> str:
        """That slides which are done may have other patches than this version finds; "" of a folder of this version."""
        if not (changes := other_versions(recorded, ("g2l",))):
            return ""
        return (
            f"note: {self.folder} was begun by another version of G2L ({changes[0]}), which may have found tissue "
            "otherwise. Slides that are done keep their patches; with another --out the tissue of all is found alike"
        )

    def note_finished(self, record: dict[str, str | int], files: Iterable[Path]) -> None:
        """Every slide is done: what there is, and the bytes of the files that must be there, by path."""
        there = sorted(path for path in files if path.is_file())
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in there}
        write_json(self.folder / FINISHED_FILE, record | {"files": sizes})

    @staticmethod
    def require_same(where: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Refuse what was made by another model or other settings.

        Raises:
            EmbedError: it was; says what differs.
        """
        if changes := differences(old, new, {"settings": UNSAID}):
            listing = "\n".join(f"  {line}" for line in changes)
            raise EmbedError(
                f"{where} was made by another model or other settings, and is not overwritten "
                f"(there -> now):\n{listing}\nChoose another --out"
            )

    def read_failures(self, marks: dict[str, Mark]) -> None:
        """Take over the patches that are missing in finished slides from the last run; if their list is gone, their
        number.
        """
        listed: dict[str, list[Failure]] = {}
        try:
            lines = read_table(self.failures_path, FAILURE_COLUMNS, ",")[0]
        except ManifestError:  # not there, or no longer what was written
            lines = []
        for _, line in lines:
            if (failure := _failure(line)) and failure.status != WHOLE_SLIDE:
                listed.setdefault(failure.slide_id, []).append(failure)
        for slide_id, mark in marks.items():
            known = listed.get(slide_id, [])
            if mark.failed and len(known) != mark.failed:
                words = f"{counted(mark.failed, 'patch was', 'patches were')} left out"
                known = [Failure(slide_id, None, None, "PATCHES", words)]
            if mark.failed:
                self._failures[slide_id] = self._of_finished[slide_id] = known

    def note_failures(self, slide_id: str, failures: list[Failure]) -> None:
        """Replace the known failures of a slide; written at once, so that a kill does not lose them. A finished slide
        that cannot be used now keeps its files, and so the failures of its patches as well.
        """
        if any(failure.status == WHOLE_SLIDE for failure in failures):
            failures = [*self._of_finished.get(slide_id, []), *failures]
        if failures != self._failures.pop(slide_id, []):
            if failures:
                self._failures[slide_id] = failures
            self.write_failures()
        elif failures:
            self._failures[slide_id] = failures

    def write_failures(self) -> None:
        """Write `failures.csv`, a line a slide or patch, in the order of slides; remove it if there are none."""
        lines = [self._lines_of(slide_id) for slide_id in sorted(self._failures) if self._failures[slide_id]]
        if not lines:
            self.failures_path.unlink(missing_ok=True)
            return
        text = table_text(FAILURE_COLUMNS, []) + "".join(lines)
        write_bytes(self.failures_path, text.encode(errors="backslashreplace"))

    def _lines_of(self, slide_id: str) -> str:
        """The lines of a slide, formatted once: the file is written for each slide that has failures."""
        failures = self._failures[slide_id]
        of, lines = self._lines.get(slide_id, (None, ""))
        if of is not failures:
            rows = [[getattr(failure, name) for name in FAILURE_COLUMNS] for failure in failures]
            lines = table_text(FAILURE_COLUMNS, rows).removeprefix(table_text(FAILURE_COLUMNS, []))
            self._lines[slide_id] = failures, lines
        return lines


def _failure(line: dict[str, Any]) -> Failure | None:
    """A line of `failures.csv`; `None` if it has been changed into something else."""
    try:
        x, y = (int(line[axis]) if line[axis] else None for axis in "xy")
        return Failure(line["slide_id"], x, y, line["status"], line["reason"])
    except (KeyError, TypeError, ValueError):
        return None
