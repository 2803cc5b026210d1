"""Which options make a better student? A grid of runs, compared on held-out cases over several seeds.

The order: look at the grid and the stores before anything is trained; train and score every run; compare; write the
tables and the figure. Which differences are shown is decided by a test that takes seeds and cases as random
(`pipeline.study.compare`), corrected for their number.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError
from pipeline.config.studies import SCORES, AblateConfig
from pipeline.disk.locks import exclusive
from pipeline.disk.tables import write_records
from pipeline.store.store import Store
from pipeline.study.compare import compare_settings, estimate_score, not_shown_lower
from pipeline.study.figures import Panel, draw_settings
from pipeline.study.folder import StudyFolder, base_record
from pipeline.study.grid import (
    STORE,
    Axis,
    Setting,
    build_settings,
    canonical_axes,
    find_reference,
    parse_axes,
    with_given_only,
)
from pipeline.study.tables import (
    PAIR_COLUMNS,
    ScoreTable,
    conclusion,
    pair_records,
    pairs_text,
    setting_records,
    settings_text,
)
from pipeline.study.yardstick import scores_by_case
from stages.studies.evaluated import evaluate_students, read_benchmarks
from stages.studies.runs import (
    Study,
    StudyRuns,
    build_yardstick,
    require_one_process,
    require_same_rows,
    require_views,
    run_study,
    yardstick_note,
)


@dataclass(frozen=True)
class Ablation:
    """Result of `g2l ablate`: its report for the terminal, and whether some runs failed."""

    text: str
    is_partial: bool


@dataclass(frozen=True)
class GridPlan:
    """What is to be run: the stores, the varied options, the settings and the one to compare with."""

    stores: list[Store]
    axes: list[Axis]
    settings: list[Setting]
    reference: Setting


def ablate(
    stores: list[Path], out: Path, options: AblateConfig, base: dict[str, Any], record: dict[str, Any]
) -> Ablation:
    """Train, score and compare the grid in the folder `out`; the same command continues or extends it.

    Args:
        stores: of the grid; the first one is the base's.
        base: values of options of `train-student`, as `TrainConfig.build` takes them.
        record: resolved options and paths, for `config.toml`.

    Raises:
        G2LError: an option or a store cannot be used, or `out` holds another study; finished runs are kept.
    """
    require_one_process()
    table = read_benchmarks(options.evaluate) if options.evaluate else None
    grid = plan_ablation(stores, options.vary or [], options.reference, base)
    first = int(base.get("seed", 0))
    folder = StudyFolder(out)
    with exclusive(out, "g2l ablate"):
        yardstick = build_yardstick(grid.stores[0], base, options.score_rows, folder)
        require_same_rows(grid.stores, yardstick.teacher.name)
        require_views(grid.stores, base, grid.settings)
        common = {"options": base_record(base), "yardstick": yardstick.record()}
        folder.start("ablate", common, with_given_only(record, base, grid.axes))
        seeds = list(range(first, first + options.seeds))
        study = Study(folder, base, grid.stores, yardstick, seeds, options.keep_checkpoints)
        runs = run_study(study, grid.settings)
        pairs = pairs_of([setting.label for setting in grid.settings], grid.reference.label, options.compare)
        tables = [held_out_table(runs, grid, seeds, pairs, options.score, options.level)]
        if table is not None:
            tables += evaluate_students(study, grid.settings, runs, grid.reference.label, table, options.level)
        text = write_ablation(folder, grid, tables, options.level)
    lost = f"{counted(len(runs.failed), 'run')} diverged; seeds that a setting lacks are left out of all comparisons"
    notes = [yardstick_note(yardstick.teacher), lost if runs.failed else ""]
    return Ablation("\n".join([text, *filter(None, notes)]), bool(runs.failed))


def plan_ablation(stores: list[Path], vary: Sequence[str], reference: str | None, base: Mapping[str, Any]) -> GridPlan:
    """Look at the grid and the stores; several stores are an axis of their own, the slowest if `vary` has none.

    Raises:
        ConfigError: a value is wrong, two stores have one name, or there is nothing to compare.
        StoreError: a store cannot be read.
    """
    axes = parse_axes(vary)
    by_name: dict[str, Path] = {}
    varied = next((axis.values for axis in axes if axis.name == STORE), ())
    for path in [*stores, *map(Path, varied)]:
        known = by_name.setdefault(path.name, path)
        if known.absolute() != path.absolute():
            raise ConfigError(f"{known} and {path} have one name; rename one, as tables tell stores by name")
    if varied:
        axes = [Axis(STORE, tuple(Path(v).name for v in varied)) if axis.name == STORE else axis for axis in axes]
    elif len(by_name) > 1:
        axes = [Axis(STORE, tuple(by_name)), *axes]
    axes = canonical_axes(axes, base)
    settings = build_settings(base, axes, list(by_name))
    if len(settings) < 2:
        raise ConfigError(
            f"the grid has {counted(len(settings), 'setting')}: nothing to compare. Give --vary NAME=VALUE,VALUE of an "
            "option that has an effect beside the others (the window of an early stop has none where there is none)"
        )
    return GridPlan(
        [Store(path) for path in by_name.values()], axes, settings, find_reference(settings, axes, reference, base)
    )


def pairs_of(labels: Sequence[str], reference: str, which: str) -> list[tuple[str, str]]:
    """The pairs to compare, the reference first in its own: "all", or those with the "reference"."""
    others = [label for label in labels if label != reference]
    pairs = [(reference, label) for label in others]
    return pairs + (list(itertools.combinations(others, 2)) if which == "all" else [])


def held_out_table(
    runs: StudyRuns, grid: GridPlan, seeds: Sequence[int], pairs: Sequence[tuple[str, str]], score: str, level: float
) -> ScoreTable:
    """The held-out score of all settings, compared on the seeds that all of them have.

    Raises:
        ConfigError: no seed has a run of every setting that is not wholly failed, or all settings are.
    """
    labels = [setting.label for setting in grid.settings if setting.label in runs.sums]
    common = runs.complete_seeds(seeds, labels)
    if not labels or not common:
        raise ConfigError("no seed has a run of every setting: all compared runs diverged. Choose a smaller --lr")
    scores = {label: scores_by_case(runs.of(label, common), score) for label in labels}
    pairs = [pair for pair in pairs if set(pair) <= scores.keys()]
    compared = compare_settings(scores, pairs, level)
    is_whole = len(pairs) == len(labels) * (len(labels) - 1) // 2
    return ScoreTable(
        SCORES[score],
        {label: estimate_score(each) for label, each in scores.items()},
        {label: each.by_seed.tolist() for label, each in scores.items()},
        compared,
        not_shown_lower(scores, compared) if is_whole else [],
    )


def write_ablation(folder: StudyFolder, grid: GridPlan, tables: Sequence[ScoreTable], level: float) -> str:
    """Write the tables and the figure; returns the report for the terminal."""
    titles = {setting.label: setting.title for setting in grid.settings}
    reference, names = grid.reference.label, [axis.name for axis in grid.axes]
    write_records(folder.folder / "table.csv", setting_records(tables, grid.settings, names, reference))
    write_records(folder.folder / "pairs.csv", pair_records(tables), PAIR_COLUMNS)
    panels = [panel for each in tables for panel in panels_of(each, titles, reference)]
    draw_settings(panels, list(titles.values()), titles[reference], folder.folder / "figure.png")
    parts = []
    for each in tables:
        said = conclusion(each, titles, level, reference)
        parts += [settings_text(each, titles, reference), pairs_text(each, titles), said, ""]
    return "\n".join([*parts, f"tables are in {folder.folder / 'table.csv'} and pairs.csv, the figure is figure.png"])


def panels_of(each: ScoreTable, titles: Mapping[str, str], reference: str) -> list[Panel]:
    """The panels of one score: the score, and its differences from the reference if there are any."""
    estimates = {titles[label]: value for label, value in each.estimates.items()}
    by_seed = {titles[label]: values for label, values in each.by_seed.items()}
    panels = [Panel(each.score, estimates, by_seed)]
    against = {titles[pair.second]: pair for pair in each.pairs if pair.first == reference}
    shown = frozenset(name for name, pair in against.items() if pair.verdict in ("higher", "lower"))
    differences = {name: pair.difference for name, pair in against.items()}
    return panels + ([Panel("less the reference, paired", differences, shown=shown)] if against else [])
