"""`g2l export --hub-card`: give the exported card the header that the hub reads, and the terms a file of their own."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from pipeline.base.errors import CheckpointError, ConfigError, EncoderError
from pipeline.base.outside import read_bytes, read_json, reading
from pipeline.config.stages import ExportConfig
from pipeline.disk.files import sha256_file, write_text
from pipeline.evaluate.report_folder import MOST_REPORT_BYTES
from pipeline.student.card_files import with_hash
from pipeline.student.hub_header import (
    OTHER,
    TERMS,
    TERMS_FILE,
    held_out_results,
    hub_header,
    name_problem,
    report_results,
    with_header,
)
from pipeline.training.identity import recorded_teachers
from pipeline.training.run_folder import RunFolder


@dataclass(frozen=True)
class HubCard:
    """What the user adds to the header.

    Attributes:
        report_path: `report.json` of `g2l evaluate`; `None` for the run's held-out figures alone.
        report: its content.
        datasets: names of data sets on the hub.
    """

    report_path: Path | None
    report: dict[str, Any]
    datasets: tuple[str, ...]


def asked_card(config: ExportConfig) -> HubCard | None:
    """What `--hub-card`, `--report` and `--dataset` ask for; `None` without `--hub-card`.

    Raises:
        ConfigError: the others stand without it, a name is none of a data set's, or there is no sound report.
    """
    if not config.hub_card:
        for name, value in (("report", config.report), ("dataset", config.dataset)):
            if value:
                raise ConfigError(f"--{name} goes into the header of the card. Add --hub-card")
        return None
    for dataset in config.dataset:
        if problem := name_problem(dataset):
            raise ConfigError(f"--dataset {dataset}: not the name of a data set on the hub. {problem}")
    if config.report is None:
        return HubCard(None, {}, tuple(config.dataset))
    path = config.report / "report.json" if config.report.is_dir() else config.report
    with reading(path, "not a report of `g2l evaluate`", ConfigError):
        return HubCard(path, read_json(path, MOST_REPORT_BYTES), tuple(config.dataset))


def write_hub_card(folder: Path, run: RunFolder, step: int, weights_sha256: str, asked: HubCard) -> None:
    """Rewrite the card of an exported student with the hub's header.

    Args:
        folder: of the student.
        step: of the run, at which the student stood.
        weights_sha256: of the student, as reports have it.

    Raises:
        CheckpointError: the run's records are damaged.
        ConfigError: the report is damaged, or has no figures of this student.
        OSError: a file cannot be written.
    """
    identity = run.read_identity()
    with reading(run.identity_path, "damaged", CheckpointError):
        teachers = [teacher.record for teacher in recorded_teachers(identity)]
        results = held_out_results(run.held_out_figures(step), identity["plan"])
        results += _of_report(asked, weights_sha256)
        header = hub_header(identity["student"], teachers, results, asked.datasets)
    card = folder / "README.md"
    with reading(card, "no text", EncoderError):
        text = read_bytes(card).decode()
    if header.license == OTHER:
        write_text(folder / TERMS_FILE, f"# Terms of this student\n{text.partition(TERMS)[2]}")
        text = with_hash(text, TERMS_FILE, sha256_file(folder / TERMS_FILE))
    write_text(card, with_header(text, header))


def ways_to_publish(out: Path, asked: HubCard | None) -> list[str]:
    """The command that publishes an exported student, as a line; none for a card that the hub could not read."""
    if asked is None:
        return []
    return [f"To publish it: g2l publish {shlex.quote(str(out))} --repo OWNER/NAME (a dry run without --yes)"]


def _of_report(asked: HubCard, weights_sha256: str) -> list[EvalResult]:
    """Results of the report, if there is one."""
    if asked.report_path is None:
        return []
    with reading(asked.report_path, "damaged", ConfigError):
        results = report_results(asked.report, weights_sha256)
    if not results:
        raise ConfigError(f"{asked.report_path}: has no figures of this student. Give a report that has it as a model")
    return results
