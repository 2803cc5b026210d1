"""The folder of a study in words, for `g2l inspect`: of `g2l ablate`, `g2l curve` or `g2l reproduce`."""

from collections import Counter
from pathlib import Path

from pipeline.base.console import counted, table
from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_json, read_toml, reading
from pipeline.encoders.model_config import CONFIG_FILE
from pipeline.public_sets.comparison_file import COMPARISON_FILE, read_comparisons
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE
from pipeline.study.folder import StudyFolder

STUDY_TABLES = ("table.csv", "pairs.csv", "figure.png")
"""What `g2l ablate` and `g2l curve` write when their runs are done."""


def describe_study(path: Path) -> str:
    """The folder of `g2l ablate` or `g2l curve` in words.

    Raises:
        ConfigError: its records are damaged.
    """
    folder = StudyFolder(path)
    with reading(folder.study_path, "damaged", ConfigError):
        study = read_json(folder.study_path)
        command, options = study["command"], study["options"]
        base = (
            f"{options['student']}, {options['weights']}, loss {options['loss']}, {counted(options['epochs'], 'epoch')}"
        )
    runs = sorted(path.glob("runs/*/*/run.json"))
    finished = [run for run in runs if (run.parent / "student" / CONFIG_FILE).is_file()]
    settings = {run.parent.parent.name for run in runs}
    tables = [name for name in STUDY_TABLES if (path / name).is_file()]
    again = f"run g2l {command} again to continue"
    rows: list[tuple[str, object]] = [
        ("study", path),
        ("made by", f"g2l {command}"),
        ("base", base),
        ("settings" if command == "ablate" else "points", f"{len(settings):,}"),
        (
            "runs",
            f"{len(runs):,} begun, {len(finished):,} finished, {len(list(path.glob('scores/*/*.json'))):,} scored",
        ),
        ("tables", ", ".join(tables) or f"none yet: {again}"),
    ]
    return table(rows)


def describe_reproduction(path: Path) -> str:
    """The folder of `g2l reproduce` in words.

    Raises:
        G2LError: its records are damaged.
    """
    with reading(path / REPRODUCE_OPTIONS_FILE, "damaged", ConfigError):
        options = read_toml(path / REPRODUCE_OPTIONS_FILE)["reproduce"]
        rows: list[tuple[str, object]] = [
            ("reproduction", path),
            ("set", options["public_set"]),
            ("read from", options["root"]),
            *(("model", name) for name in options.get("models", [])),
            *(("features", name) for name in options.get("features", [])),
        ]
    if not is_there(path / COMPARISON_FILE):
        return table([*rows, ("finished", "no: run g2l reproduce again to continue")])
    comparisons = [row for row in read_comparisons(path) if row.model]
    verdicts = Counter(row.verdict for row in comparisons)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    cells = [
        (
            row.metric,
            row.model,
            f"{row.measured.value:.4f}" if row.measured else "-",
            f"{row.published.value:.4f}" if row.published else "-",
            row.verdict,
        )
        for row in comparisons
    ]
    text = table([*rows, ("comparisons", counts or "none")])
    return f"{text}\n\n{table(cells, ('metric', 'model', 'measured', 'published', 'verdict'), right=(2, 3))}"
