"""The command `g2l`: verbs that parse and call. Nothing heavy is imported before a verb runs."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from g2l.streams import open_closed_streams
from pipeline.base import interrupts
from pipeline.base.cores import require_addresses
from pipeline.base.errors import EXIT_OK, EXIT_PARTIAL, ConfigError
from pipeline.base.processes import launched_processes
from pipeline.config.base import Config
from pipeline.config.feature_tools import tool_names
from pipeline.config.model_names import absolute_model
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExportConfig, ExtractConfig, MergeConfig, NoOptions, TrainConfig, VerifyConfig
from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.config.tools import DoctorConfig, EmbedConfig, ImportConfig, ModelsConfig, PublishConfig
from pipeline.evaluate.options.config import evaluate_config
from pipeline.public_sets.options import ReproduceConfig
from stages.ending import DEBUG_VARIABLE, ended, show
from stages.options import Call, CommandWithPanels, know_options, nonempty_path, with_options

if TYPE_CHECKING:
    from pipeline.base.launched.group import LaunchedGroup

WITHOUT_SCIPY = ("make-manifest", "inspect", "models", "recipes")
"""Commands that load less than the others."""

app = typer.Typer(
    name="g2l",
    help="Distil a giga-scale pathology encoder into a cancer-specific large-scale one, in two offline stages.\n\n"
    "manifest.csv -> plan -> extract-teacher -> train-student -> export",
    epilog="Exit codes: 0 all done, 1 wrong use or input, 3 done but some slides or patches failed, "
    "4 reproduced but a value differs from the published one, "
    "129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM. "
    f"{DEBUG_VARIABLE}=1 shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)


def verb(name: str, *configs: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command under its name, with the options of these configurations."""
    panels = CommandWithPanels if any(config.panels for config in configs) else None

    def register(command: Callable[..., None]) -> Callable[..., None]:
        know_options(name, command, configs)

        @wraps(command)
        def run(*arguments: Any, **values: Any) -> None:
            if name not in WITHOUT_SCIPY:
                require_addresses()
            command(*arguments, **values)

        return app.command(name, cls=panels)(with_options(name, *configs)(run))

    return register


def argument(name: str, description: str) -> Any:
    """A positional path that the `--config` file may give instead."""
    return typer.Argument(None, metavar=name, help=description, show_default=False, parser=nonempty_path)


def output(description: str) -> Any:
    """The option `--out`, which the `--config` file may give instead."""
    help_text = f"{description} [required]"
    return typer.Option(None, "--out", help=help_text, show_default=False, parser=nonempty_path, metavar="PATH")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"g2l {metadata.version('g2l')}")
        raise typer.Exit


@app.callback()
def g2l(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options of `g2l` itself."""


@verb("make-manifest", NoOptions)
def make_manifest(
    call: Call,
    source: Path | None = argument("DIR|GDC_MANIFEST", "Folder of slides, or a list of the GDC (TSV)."),
    out: Path | None = output("Manifest to write (CSV)."),
) -> None:
    """Write a manifest of the slides in a folder, or of a list of the GDC (case and centre from the TCGA barcode)."""
    from pipeline.cohort import sources

    _, paths = call.resolve(NoOptions, source=source, out=out)
    for line in sources.make_manifest(paths["source"], paths["out"]):
        show(line)


@verb("plan", PlanConfig)
def plan(
    call: Call,
    manifest: Path | None = argument("MANIFEST", "Manifest of slides (CSV)."),
    out: Path | None = output("Plan to write (HDF5); its audit and options go beside it."),
) -> None:
    """Audit slides, find tissue, sample patches; writes PLAN.h5, and tables beside it. Uses no accelerator, unless
    --sampler-encoder does.
    """
    from pipeline.cohort.draws.budget import ASSUMED_WIDTH
    from stages.planning.write import failed_slides, write_new_plan
    from stages.reports.classes import class_table
    from stages.reports.plan import audit_table, estimate
    from stages.reports.plan_cases import case_table
    from stages.reports.plan_tables import balance_tables

    config, paths = call.resolve(PlanConfig, manifest=manifest, out=out)
    new_plan = write_new_plan(paths["manifest"], config, paths["out"])
    show(audit_table(new_plan))
    if classes := class_table(new_plan):
        show(f"\n{classes}\n")
    show("\n".join(filter(None, (balance_tables(new_plan.slides), case_table(new_plan.slides)))))
    width, pixels = config.budget_width or ASSUMED_WIDTH, config.budget_pixels or "jpegxl"
    show(estimate(new_plan, width=width, pixels=pixels))
    show(f"plan {new_plan.hash[:12]} is in {paths['out']}")
    raise typer.Exit(EXIT_PARTIAL if failed_slides(new_plan) else EXIT_OK)


@verb("extract-teacher", ExtractConfig, PlanConfig)
def extract_teacher(
    call: Call,
    plan: Path | None = argument(
        "PLAN.h5|MANIFEST.csv|STORE.zarr",
        "Plan; or a manifest, which is planned first; or a store, which holds its plan.",
    ),
    out: Path | None = output("Store to create or continue (a Zarr folder)."),
) -> None:
    """Stage one: run the teacher once over the planned patches; writes the store. Run again to continue. On a finished
    store, another --teacher adds its embeddings: extract-teacher STORE.zarr --out STORE.zarr --teacher OTHER.
    With several processes: torchrun --no-python --nproc-per-node N g2l extract-teacher ...
    """
    from stages.finished import finished_extract
    from stages.planning.to_extract import plan_to_extract
    from stages.reports.extract import extract_report

    only_plan = PlanConfig.model_fields.keys() - ExtractConfig.model_fields.keys()
    config, paths = call.resolve(ExtractConfig, plan=plan, out=out, others=only_plan)
    with launched("extract-teacher", paths["out"]) as group:
        if group is not None and not group.is_leader:
            from stages.many.extract_helper import help_extract

            help_extract(group, paths["out"], config)
            return
        to_extract = plan_to_extract(
            paths["plan"],
            paths["out"],
            config,
            call.names() & only_plan,
            lambda: call.resolve_another(PlanConfig, "plan"),
        )
        for text in to_extract.reports:
            show(text)
        record = {"plan": str(to_extract.source.absolute()), "out": str(paths["out"].absolute())} | config.stored()
        extracted = finished_extract(to_extract.plan, to_extract.source, paths["out"], config)
        if extracted is None:
            from stages import extract_teacher as stage

            extracted = stage.extract_teacher(to_extract.plan, paths["out"], config, record=record, group=group)
        show(extract_report(extracted))
    exit_with(bool(extracted.num_failed or to_extract.num_bad_slides), group)


@verb("merge", MergeConfig)
def merge(
    call: Call,
    parts: list[Path] | None = typer.Argument(
        None, metavar="PART.zarr...", help="Stores of all parts of one plan.", show_default=False
    ),
    out: Path | None = output("Store to create or continue (a Zarr folder)."),
) -> None:
    """Make one store of the stores that extract-teacher --part has made, after checking them. Run again to continue."""
    from stages.many import merge as stage
    from stages.reports.extract import merge_report

    config, paths = call.resolve(MergeConfig, others=["parts"], out=out)
    merged = stage.merge(call.path_list("parts", parts), paths["out"], link=config.link)
    show(merge_report(merged))
    raise typer.Exit(EXIT_PARTIAL if any(merged.teacher.ledger.failures()) else EXIT_OK)


@verb("import-features", ImportConfig)
def import_features(
    call: Call,
    features: Path | None = argument("DIR", f"Features of the teacher: {tool_names()}."),
    out: Path | None = output("Store to create or continue (a Zarr folder)."),
) -> None:
    """Stage one without the teacher: make a store from existing features, with their pixels read from the slides. With
    several processes: torchrun --no-python --nproc-per-node N g2l import-features ...
    """
    from stages.finished import finished_import
    from stages.planning.write import failed_slides
    from stages.reports.extract import import_report

    config, paths = call.resolve(ImportConfig, features=features, out=out)
    record = {name: str(path.absolute()) for name, path in paths.items()} | config.stored()
    with launched("import-features", paths["out"]) as group:
        if group is not None and not group.is_leader:
            from stages.many.import_helper import help_import

            help_import(group, paths["out"], config)
            return
        imported = finished_import(paths["features"], paths["out"], config)
        if imported is None:
            from stages import import_features as stage

            imported = stage.import_features(paths["features"], paths["out"], config, record=record, group=group)
        show(import_report(imported))
    exit_with(bool(imported.num_failed or failed_slides(imported.store.plan)), group)


@verb("train-student", TrainConfig)
def train_student(
    call: Call,
    store: Path | None = argument("STORE.zarr", "Finished store of stage one: a folder, or s3://... (gs://, az://)."),
    out: Path | None = output("Run directory to create or continue."),
) -> None:
    """Stage two: train student and projector against the store; writes the run directory. Run again to continue."""
    from pipeline.base.console import say
    from pipeline.store.remote.opening import open_store
    from stages.finished import finished_training
    from stages.reports.train import train_report

    config, paths = call.resolve(TrainConfig, urls=["store"], store=store, out=out)
    with open_store(paths["store"], config.stage_folder(), tell=say) as opened:
        if finished := finished_training(opened, paths["out"], config):
            show(train_report(finished))
            return
        from pipeline.base import distributed
        from stages import train_student as stage

        trained = stage.train_student(opened, paths["out"], config)
    if distributed.is_leader():
        show(train_report(trained))


@verb("export", ExportConfig)
def export(
    call: Call,
    run: Path | None = argument("RUN", "Finished run directory."),
    out: Path | None = output("Folder to write the student to."),
) -> None:
    """Export the trained student of a run as files that timm and others load, with identical embeddings; adds its card
    and adapters for benchmarks.
    """
    from stages.export import export_student
    from stages.publishing.hub_card import asked_card

    config, paths = call.resolve(ExportConfig, run=run, out=out)
    show(export_student(paths["run"], paths["out"], config.format, asked_card(config)))


@verb("publish", PublishConfig)
def publish(
    call: Call,
    folder: Path | None = argument("FOLDER", "Student that `g2l export --hub-card` wrote, or a finished store."),
) -> None:
    """Publish an exported student or a store on the Hugging Face Hub; says what it would send, and sends nothing
    without --yes.
    """
    from pipeline.disk.raw_arrays import METADATA
    from stages.publishing.publish import publish_student, require_typed

    require_typed(call.table)
    config, paths = call.resolve(PublishConfig, folder=folder)
    if (paths["folder"] / METADATA).exists():
        from stages.publishing.publish_store import publish_store

        show(publish_store(paths["folder"], config))
    else:
        show(publish_student(paths["folder"], config))


@verb("embed", EmbedConfig)
def embed(
    call: Call,
    model: Path | None = argument(
        "MODEL", "[LABEL=]ENCODER[@WEIGHTS]: a run, an exported student, or an encoder of `g2l models` or timm."
    ),
    slides: Path | None = argument("SLIDES|MANIFEST", "Folder of slides, one slide, or a manifest (CSV)."),
    out: Path | None = output("Folder to write one file a slide to, or to continue."),
) -> None:
    """Embed all tissue of slides for other tools: one complete file a slide. Run again to continue. With several
    processes: torchrun --no-python --nproc-per-node N g2l embed ...
    """
    from stages.finished import finished_embedding
    from stages.reports.embed import embed_report

    config, paths = call.resolve(EmbedConfig, model=model, slides=slides, out=out)
    options = {name: str(path.absolute()) for name, path in paths.items()} | config.stored()
    options["model"] = absolute_model(str(paths["model"]))
    model_name, slides_path, folder = str(paths["model"]), paths["slides"], paths["out"]
    with launched("embed", folder) as group:
        if group is not None and not group.is_leader:
            from stages.many.embed_helper import help_embed

            help_embed(group, model_name, slides_path, folder, config)
            return
        tally = finished_embedding(model_name, slides_path, folder, config)
        if tally is None:
            from stages import embed as stage

            tally = stage.embed(model_name, slides_path, folder, config, options=options, group=group)
        show(embed_report(tally))
    exit_with(tally.is_partial, group)


@verb("inspect", NoOptions)
def inspect(
    call: Call, path: Path | None = argument("PLAN|STORE|RUN|STUDENT|STUDY|REPRODUCTION", "What to look at.")
) -> None:
    """Show what a plan, store, run or student holds, and how far it has come. Writes nothing."""
    from stages.inspect import inspect_path

    _, paths = call.resolve(NoOptions, urls=["path"], path=path)
    show(inspect_path(paths["path"]))


@verb("doctor", DoctorConfig)
def doctor(
    call: Call, path: Path | None = argument("MANIFEST|STORE|RUN", "What to look at, besides the machine.")
) -> None:
    """Look at what is installed, the disk, and the first slides, and say what to do. Leaves nothing behind. Slides are
    planned by the table [plan] of --config, if there is one.
    """
    from stages.doctor.doctor import doctor as look
    from stages.doctor.estimate import TriedSlides

    if path is None and "path" not in call.table:
        config, paths = call.resolve(DoctorConfig)
    else:
        config, paths = call.resolve(DoctorConfig, urls=["path"], path=path)
    planned = call.resolve_another(PlanConfig, "plan")
    slides = TriedSlides.by(planned, config.slides_root)
    text, code = look(paths.get("path"), config.place, config.teacher, slides)
    show(text)
    raise typer.Exit(code)


@verb("verify", VerifyConfig)
def verify(
    call: Call, store: Path | None = argument("STORE.zarr", "Store to check: a folder, or s3://... (gs://, az://).")
) -> None:
    """Recompute every checksum, embed a sample of rows again, and report the largest difference. Writes nothing."""
    from stages.verify import verify_store

    config, paths = call.resolve(VerifyConfig, urls=["store"], store=store)
    text, code = verify_store(
        paths["store"],
        config.weights,
        config.sample,
        config.device,
        config.slides_root,
        config.teacher,
        config.stage_folder(),
    )
    show(text)
    raise typer.Exit(code)


@verb("evaluate", evaluate_config())
def evaluate(call: Call, out: Path | None = output("Folder to write report.html, report.json and figures to.")) -> None:
    """Compare teacher, student and others in one report: fidelity, patch and slide benchmarks, robustness, cost."""
    from stages import evaluate as stage

    config, paths = call.resolve(evaluate_config(), out=out)
    report = stage.evaluate(paths["out"], config)
    show(stage.summary(report, paths["out"]))
    raise typer.Exit(EXIT_PARTIAL if stage.is_partial(report) else EXIT_OK)


@verb("reproduce", ReproduceConfig)
def reproduce(
    call: Call,
    public_set: Path | None = argument("SET", "A public set; `--list` describes them."),
    out: Path | None = output("Folder to write table, report, comparison and figures to."),
    is_list: Annotated[bool, typer.Option("--list", help="List the sets with their terms, and exit.")] = False,
) -> None:
    """Score models on a public set, and compare with published values: PASS, FAIL or why neither. Exits with 4 on FAIL.
    Downloads nothing.
    """
    if is_list:
        from pipeline.public_sets.listing import list_sets

        show(list_sets())
        return
    from stages.studies import reproduce as stage

    config, paths = call.resolve(ReproduceConfig, public_set=public_set, out=out)
    reproduced = stage.reproduce(str(paths["public_set"]), paths["out"], config)
    show(stage.reproduction_summary(reproduced, paths["out"]))
    raise typer.Exit(reproduced.exit_code)


@verb("ablate", AblateConfig, TrainConfig)
def ablate(
    call: Call,
    stores: list[Path] | None = typer.Argument(
        None, metavar="STORE.zarr...", help="Finished store; several are compared.", show_default=False
    ),
    out: Path | None = output("Folder of the study to create, continue or extend."),
) -> None:
    """Compare options of train-student: a grid of runs over several seeds; writes table.csv, pairs.csv and figure.png.
    Says which differences are shown. Run again to continue, or with more values or seeds.
    """
    options, base, paths, record = call.resolve_study(
        AblateConfig, TrainConfig, "train-student", stores=stores, out=out
    )
    from stages.studies import ablate as stage

    result = stage.ablate(paths["stores"], paths["out"][0], options, base, record)
    show(result.text)
    raise typer.Exit(EXIT_PARTIAL if result.is_partial else EXIT_OK)


@verb("curve", CurveConfig, TrainConfig)
def curve(
    call: Call,
    store: Path | None = argument("STORE.zarr", "Finished store of stage one."),
    out: Path | None = output("Folder of the study to create, continue or extend."),
) -> None:
    """Do I have enough slides? The student's score over slides, patches a slide and epochs, and what twice as many
    would give; writes table.csv and figure.png. Run again to continue, or with more numbers or seeds.
    """
    options, base, paths, record = call.resolve_study(
        CurveConfig, TrainConfig, "train-student", store=[store] if store else None, out=out
    )
    from stages.studies import curve as stage

    result = stage.curve(paths["store"][0], paths["out"][0], options, base, record)
    show(result.text)
    raise typer.Exit(EXIT_PARTIAL if result.is_partial else EXIT_OK)


@verb("models", ModelsConfig)
def models(
    call: Call,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One encoder: what it is, and how to get it.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the embedding of the test patch to --values, to compare later.")
    ] = False,
) -> None:
    """List the encoders, or describe one and how to get its weights. --check exits with 1 if its embedding of a test
    patch differs. Writes only what --record and --patch-out name.
    """
    from stages.models.describe import describe_model, models_table

    config, _ = call.resolve(ModelsConfig)
    wanted = [flag for flag in ("check", "values", "weights", "patch_out") if getattr(config, flag)] + [
        "record"
    ] * record
    if not wanted:
        show(describe_model(name) if name else models_table(everything=config.all))
        return
    if name is None:
        raise ConfigError(f"--{wanted[0].replace('_', '-')}: name the encoder, as in g2l models NAME --check")
    if record and config.check:
        raise ConfigError("--check compares with --values, and --record writes it. Give one of them, then the other")
    from stages.models.check import check_against_values, write_test_patch  # loads torch

    if config.patch_out:
        show(write_test_patch(name, config.patch_out))
    if wanted != ["patch_out"]:
        text, code = check_against_values(name, config, record=record)
        show(text)
        raise typer.Exit(code)


@app.command("recipes")
def recipes() -> None:
    """List the recipes of plan, extract-teacher and train-student, and where each value is from. Writes nothing."""
    from stages.reports.recipes import recipes_table

    show(recipes_table())


@verb("demo", NoOptions)
def demo(
    call: Call,
    out: Path | None = typer.Option(None, "--out", help="Folder to write to. [demo-out]", show_default=False),
) -> None:
    """Run both stages on a real slide, with figures and pictures; a few minutes on two cores."""
    from stages.demo import run_demo

    _, paths = call.resolve(NoOptions, out=out if out or call.file else Path("demo-out"))
    raise typer.Exit(run_demo(paths["out"]))


@contextmanager
def launched(command: str, output: Path) -> "Iterator[LaunchedGroup | None]":
    """The group of processes that `torchrun` started for this output, with its first one leading it; `None` for one
    process.

    Raises:
        G2LError: they do not find each other.
    """
    if launched_processes() == 1:
        yield None
        return
    from pipeline.base.launched.group import join

    group = join(command, output)
    with group.leading() if group.is_leader else nullcontext():
        yield group


def exit_with(is_partial: bool, group: "LaunchedGroup | None") -> None:
    """End a command that is done. A launcher takes any code but 0 for a crash, and would start all processes again.

    Raises:
        typer.Exit: always.
    """
    raise typer.Exit(EXIT_PARTIAL if is_partial and group is None else EXIT_OK)


def main() -> None:
    """Entry point: report errors without a traceback; exit codes are in `errors`."""
    for stream in (sys.stdout, sys.stderr):  # escape what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with interrupts.handled():
        code = ended(_call_app)
    sys.exit(code)


def _call_app() -> int:
    """Call the command of `sys.argv`; returns its exit code.

    Raises:
        BrokenPipeError: the reader of what it prints has gone; typer makes exit code 1 of that.
    """
    try:
        code: int = app(standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    return code


if __name__ == "__main__":
    open_closed_streams()
    interrupts.install()
    main()
