"""Reproduce a published benchmark: from a public set's folder to published values beside ours, and a verdict.

The set's reader makes the table, `stages.evaluate` scores the models on it as on any other, and the values are compared
with those of `data_manifests/published.csv` by the tolerance of the set's recipe. Nothing is downloaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.console import say, table
from pipeline.base.cores import usable_cores
from pipeline.base.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_PARTIAL, BenchmarkError, ConfigError
from pipeline.base.outside import is_there, read_toml, reading
from pipeline.config.base import differences, to_toml
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, write_text
from pipeline.disk.locks import exclusive
from pipeline.disk.tables import write_records, write_table
from pipeline.encoders.build import known_to_timm, mistyped_encoder
from pipeline.encoders.source import find_weights
from pipeline.encoders.table import named_spec
from pipeline.evaluate.options.config import evaluate_config
from pipeline.evaluate.options.shared import EARLIER_NAMES
from pipeline.evaluate.robustness.sweep_plan import OUR_SCHEDULE, PATHOROB_SCHEDULE, PUBLISHED_SWEEPS
from pipeline.public_sets.compare import FAIL, Comparison, compare_with_published
from pipeline.public_sets.comparison_file import COMPARISON_FILE, read_comparisons, write_comparisons
from pipeline.public_sets.copies import without_leaks
from pipeline.public_sets.figures_of_paper import FIGURE_1_COLUMNS, draw_comparison, draw_figure_1, figure_1_rows
from pipeline.public_sets.measured import MEASURED, feature_labels, measured_values, milliseconds, num_failed
from pipeline.public_sets.members import Members
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE, ReproduceConfig
from pipeline.public_sets.paper_tables import draw_table, paper_tables, shared_places
from pipeline.public_sets.published import names_another, published_name, published_values
from pipeline.public_sets.recipe import DEFAULT_PROTOCOL, SetRecipe, find_recipe
from pipeline.public_sets.whole import num_failures, why_not_all_used, why_not_whole
from pipeline.report.content import Exclusion, Report
from pipeline.report.page import REPORT_FILE
from pipeline.student.resolve import name_models
from stages.evaluate import evaluate
from stages.studies.outdated import (
    COMPARISON_PICTURE,
    FIGURE_1_PICTURE,
    FIGURE_1_TABLE,
    IMAGES_FOLDER,
    LEFT_OUT_FILE,
    REPORT_FOLDER,
    TABLE_FILE,
    paper_tables_of,
    put_aside,
    put_back_left,
    results_of,
)

SHOWN_LEFT_OUT = 5
"""Members that were left out and are named on the terminal. Our choice: `left_out.csv` has all."""
EVALUATE_OPTIONS = (
    *("models", "reference", "knn", "resamples", "seed"),
    *("cost", "patch_px", "cache", "batch_size", "precision"),
)
"""Options that `evaluate` gets as they are; `device` and `workers` as well."""
RENEWABLE = ("out", "root", "models", "features", "reference", "cost")
"""What may change in a folder that holds a report: embeddings are kept by what they are of, so that only new models
cost time. Our choice: with other seeds, protocols or arithmetic the old values and the new ones differ by themselves.
"""


@dataclass(frozen=True)
class Reproduced:
    """What came out: all comparisons of the set, and how many members or images failed."""

    recipe: SetRecipe
    comparisons: tuple[Comparison, ...]
    num_failed: int

    @property
    def exit_code(self) -> int:
        """`EXIT_DIFFERENT` if a value fails, else `EXIT_PARTIAL` if members failed, else `EXIT_OK`."""
        if any(row.verdict == FAIL for row in self.comparisons):
            return EXIT_DIFFERENT
        return EXIT_PARTIAL if self.num_failed else EXIT_OK


def reproduce(name: str, out: Path, config: ReproduceConfig) -> Reproduced:
    """Score the models on a public set in the folder `out`, and compare; the same options renew it, with other models
    or another place of the set, too.

    Raises:
        G2LError: no such set, its folder cannot be used, or `out` holds another set or other options.
    """
    recipe = find_recipe(name)
    check_compared(recipe, config)
    check_inputs(config.root, config.models or [], config.patch_px)
    beside = [row for folder in config.beside or () for row in read_comparisons(Path(folder))]
    with exclusive(out, "g2l reproduce"), started_reproduction(out, recipe.name, config):
        say(f"reproduce: reading {recipe.title}")
        members, not_whole = read_set(recipe, config.root, out, config.workers or usable_cores())
        report = evaluate(
            out / REPORT_FOLDER, evaluate_config().build(evaluation_options(recipe, out, members, config))
        )
        not_used = why_not_all_used(report, recipe.benchmark)
        reason = "; ".join(filter(None, (not_whole, not_used)))
        for model in report.models:
            if names_another(model.label, model):
                encoder = model.record["encoder"]
                say(f"note: {model.label}: its feature files name the encoder {encoder}; it is compared with nothing")
        comparisons = compare_report(recipe, report, protocol_of(recipe, config.protocol), reason)
        for place in shared_places([*comparisons, *beside]):
            say(
                f"note: {place}: several values for one place of the paper's tables, which show the first: this call's "
                "before those of --beside"
            )
        write_outcome(out, report, comparisons, beside)
    failed = num_failures(members.left_out) + num_failed(report)
    return Reproduced(recipe, tuple(comparisons), failed)


def check_compared(recipe: SetRecipe, config: ReproduceConfig) -> None:
    """See that there is something to compare on the set, before it is read.

    Raises:
        ConfigError: features are missing, or are given for a set of images; models are missing there; a sweep of a set
            that is not for it.
    """
    of_slides = recipe.benchmark == "slides"
    if of_slides and not config.features:
        raise ConfigError(f"{recipe.name} needs --features: files of its slides, one folder a model")
    if config.features and not of_slides:
        raise ConfigError(f"--features: {recipe.name} has no slides, it is a set of images; give --models")
    if not of_slides and not config.models:
        raise ConfigError(f"{recipe.name} needs --models: its images are embedded by each")
    if config.sweep and recipe.benchmark != "robustness":
        raise ConfigError(f"--sweep: {recipe.name} is no set for robustness")


def check_inputs(root: Path, models: Sequence[str], patch_px: int | None) -> None:
    """See that the set's folder and the models are there, before anything is written or made anew.

    Raises:
        ConfigError: `root` is no folder, or a name is no model's.
        G2LError: a run, a student or weights are not there, or are damaged.
    """
    if not root.is_dir():
        raise ConfigError(f"--root {root} is not a folder. Give the folder of the set, as `g2l reproduce --list` says")
    for model in name_models(models, patch_px):
        spec = named_spec(model.encoder)
        if spec.source.startswith("timm:") and not known_to_timm(spec.architecture):
            raise ConfigError(
                f"--models: no encoder is called {spec.name}{mistyped_encoder(spec.name)}; `g2l models` lists those of "
                "the table"
            )
        if isinstance(model.weights, Path):
            find_weights(model.weights, spec)


@contextmanager
def started_reproduction(out: Path, name: str, config: ReproduceConfig) -> Iterator[None]:
    """Make the folder, or see that it was made for the same set with the same options, but for those of `RENEWABLE`.
    One that holds no values, since its reproduction failed or was killed, may be corrected in everything. If anything
    changes, what is there is put aside while the block runs, and is there again if it fails, as is what a killed call
    had put aside.

    Raises:
        ConfigError: it was made for others, or the folder is not empty and no reproduction's.
    """
    make_output_folder(out)
    put_back_left(out)
    path = out / REPRODUCE_OPTIONS_FILE
    if not is_there(path) and not holds_nothing(out):
        raise ConfigError(f"{out} is not empty and holds no reproduction; nothing is overwritten. Choose another --out")
    remove_asides(out, recursive=False)
    changes = changed_options(out, name, config) if is_there(path) else []
    has_values = is_there(out / REPORT_FOLDER / REPORT_FILE) or bool(results_of(out))
    listing = "\n".join(f"  {line}" for line in changes)
    if has_values and not all(line.startswith(tuple(f"{each}:" for each in RENEWABLE)) for line in changes):
        raise ConfigError(f"{out} holds another reproduction (there -> now):\n{listing}\nChoose another --out")
    if changes:
        say(f"note: {out} is made anew, with embeddings that are there (there -> now):\n{listing}")
    of_other_images = any(line.startswith(("public_set:", "root:")) for line in changes)
    with put_aside(out, with_images=of_other_images) if changes else nullcontext():
        record = {"public_set": name, "out": str(out.absolute())} | config.stored()
        write_text(path, to_toml({"reproduce": record}))
        yield


def changed_options(out: Path, name: str, config: ReproduceConfig) -> list[str]:
    """How set and options differ from those that the folder was made for, `name: there -> now`.

    Raises:
        ConfigError: the folder's record is damaged.
    """
    path = out / REPRODUCE_OPTIONS_FILE
    with reading(path, "damaged", ConfigError, "Delete the folder, or choose another --out"):
        recorded = dict(read_toml(path)["reproduce"])
        before = {"public_set": recorded.pop("public_set"), "out": recorded.pop("out")}
        before |= type(config).build(recorded).absolute().deciding()
    now = {"public_set": name, "out": str(out.absolute())} | config.absolute().deciding()
    return differences(before, now, config.unsaid())


def read_set(recipe: SetRecipe, root: Path, out: Path, workers: int) -> tuple[Members, str]:
    """Read the set's folder, and see why it is not the whole set, if it is not; writes `table.csv`, and `left_out.csv`
    with what it leaves out.

    Raises:
        BenchmarkError: the folder is not that of the set, or nothing in it can be used.
    """
    members = recipe.load_reader()(root, out / IMAGES_FOLDER, recipe.reader_options)
    rows, left_out = members.rows, members.left_out
    not_whole = why_not_whole(recipe.counts, rows, num_failures(left_out))
    if recipe.benchmark == "patches" and members.images_root is not None:
        rows, copies = without_leaks(rows, members.images_root, workers)
        left_out = (*left_out, *copies)
    write_table(out / LEFT_OUT_FILE, ("member", "why", "by_rule"), [(e.what, e.why, e.by_rule) for e in left_out])
    if not rows:
        raise BenchmarkError(f"{root}: all {len(left_out):,} members are left out; {out / LEFT_OUT_FILE} says why")
    write_records(out / TABLE_FILE, rows)
    about_whole = _words_on_whole(recipe, not_whole)
    for line in (*members.notes, *_words_on_left_out(left_out, out / LEFT_OUT_FILE), *about_whole):
        say(f"note: {line}")
    return Members(rows, members.images_root, left_out, members.notes), not_whole


def _words_on_whole(recipe: SetRecipe, not_whole: str) -> list[str]:
    """What to say, before the hours that scoring may take, of a set that is not whole or may not be."""
    if not_whole:
        known = f" (published: {recipe.counts.source})" if recipe.counts else ""
        return [f"not all of {recipe.name} is there: {not_whole}{known}. It is scored, but not compared"]
    return [] if recipe.counts else [f"how much {recipe.name} holds is not known here: see that all of it is there"]


def _words_on_left_out(left_out: Sequence[Exclusion], path: Path) -> list[str]:
    """What to say of members that are left out: those that failed by name, a few of them."""
    failed = [each for each in left_out if not each.by_rule]
    lines = [f"left out: {each.what}: {each.why}" for each in failed[:SHOWN_LEFT_OUT]]
    if len(left_out) > len(lines):
        lines.append(f"{len(left_out):,} members are left out, {len(failed):,} of them for a fault; {path} lists all")
    return lines


def evaluation_options(recipe: SetRecipe, out: Path, members: Members, config: ReproduceConfig) -> dict[str, Any]:
    """The options of `g2l evaluate` for the set's table; those that are not given stay away."""
    values = {name: getattr(config, name) for name in EVALUATE_OPTIONS}
    values |= {"device": config.device, "workers": config.workers, "images_root": members.images_root}
    values |= {recipe.benchmark: out / TABLE_FILE, "features": config.features}
    protocol = protocol_of(recipe, config.protocol)
    schedule = PATHOROB_SCHEDULE if recipe.name in PUBLISHED_SWEEPS else OUR_SCHEDULE
    values |= {"robustness_sweep": schedule if config.sweep else None}
    values |= {"protocol": None if protocol == DEFAULT_PROTOCOL else protocol}
    return {name: value for name, value in (values | dict(recipe.options)).items() if value is not None}


def protocol_of(recipe: SetRecipe, asked: str | None) -> str:
    """The name of the protocol of the probes: the one that is asked for, else the set's."""
    protocol = asked or recipe.protocol
    return EARLIER_NAMES.get(protocol, protocol)


def compare_report(recipe: SetRecipe, report: Report, protocol: str, not_whole: str = "") -> list[Comparison]:
    """Every model of the report by every metric of the recipe.

    Args:
        protocol: of the probes, by its name.
        not_whole: why the report is of a part of the set; "" if it is of all.
    """
    models = {model.label: model for model in report.models}
    reference = published_name(report.reference, models.get(report.reference))
    comparisons: list[Comparison] = []
    for metric in recipe.metrics:
        measured = measured_values(report, metric.name) if metric.reference in ("", reference) else {}
        of_slides = recipe.benchmark == "slides"
        labels = dict.fromkeys(feature_labels(report) if of_slides else [*models, *measured])
        names = {label: published_name(label, models.get(label)) for label in labels}
        published = [each for each in published_values() if (each.set, each.metric) == (recipe.name, metric.name)]
        learnt_by = protocol if MEASURED[metric.name].is_learnt else ""
        comparisons += compare_with_published(
            recipe.name, metric, measured, names, published, not_whole=not_whole, protocol=learnt_by
        )
    return comparisons


def write_outcome(out: Path, report: Report, comparisons: Sequence[Comparison], beside: Sequence[Comparison]) -> None:
    """Write the comparison, Figure 1 and the paper's tables, each as CSV and PNG."""
    write_comparisons(out / COMPARISON_FILE, comparisons)
    draw_comparison(comparisons, out / COMPARISON_PICTURE)
    times = milliseconds(report)
    draw_figure_1(report.models, comparisons, times, out / FIGURE_1_PICTURE)
    write_table(out / FIGURE_1_TABLE, FIGURE_1_COLUMNS, figure_1_rows(report.models, comparisons, times))
    for path in paper_tables_of(out):  # of rows beside that are not beside any more
        path.unlink()
    for paper in paper_tables([*comparisons, *beside]):
        write_table(out / f"{paper.name}.csv", paper.columns, paper.rows)
        draw_table(paper, out / f"{paper.name}.png")


def reproduction_summary(reproduced: Reproduced, out: Path) -> str:
    """The closing table: a line a model and metric, and where the rest is."""
    rows = [
        (
            row.metric,
            row.model,
            "-" if row.value is None else f"{row.value:.4f}",
            f"{row.published.value:.4f}" if row.published else "-",
            f"{row.tolerance:g}",
            row.verdict,
        )
        for row in reproduced.comparisons
        if row.model
    ]
    columns = ("metric", "model", "measured", "published", "tolerance", "verdict")
    reasons = {row.reason for row in reproduced.comparisons if row.reason}
    lines = [table(rows, columns, right=(2, 3, 4)), *(f"not comparable: {reason}" for reason in sorted(reasons))]
    if reproduced.num_failed:
        lines.append(f"{reproduced.num_failed:,} members failed; {out / LEFT_OUT_FILE} and the report list them")
    return "\n".join(
        [*lines, f"{out / COMPARISON_FILE} has the published models too; the report is in {out / REPORT_FOLDER}"]
    )
