"""The command `g2l`: verbs that parse and call. Nothing heavy is imported before a verb runs."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config import Config, ExtractConfig, PlanConfig, TrainConfig
from pipeline.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL, ConfigError, G2LError
from stages.options import resolve, with_options

DEBUG_VARIABLE = "G2L_TRACEBACK"
"""Set to 1 to see the traceback of an error."""

app = typer.Typer(
    name="g2l",
    help="Distil a giga-scale pathology encoder into a cancer-specific large-scale one, in two offline stages.\n\n"
    "manifest.csv -> plan -> extract-teacher -> train-student -> export",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option("--out", help="Where to write. [required]", show_default=False)]


def argument(name: str, words: str) -> Any:
    """A positional path that may also stand in the `--config` file."""
    return typer.Argument(None, metavar=name, help=words, show_default=False)


@app.command("make-manifest")
def make_manifest(
    source: Path = typer.Argument(..., metavar="DIR|GDC_MANIFEST", help="Folder of slides, or a GDC manifest (TSV)."),
    out: Path = typer.Option(..., "--out", help="Manifest to write (CSV)."),
) -> None:
    """Write a manifest of the slides in a folder, or of a GDC manifest (case and centre from the TCGA barcode)."""
    from pipeline import manifest_sources
    from pipeline.files import require_new_file
    from pipeline.manifest import write_manifest

    rows, root = manifest_sources.make_manifest(source)
    require_new_file(out, "Delete it first, or choose another --out.")
    write_manifest(out, rows)
    cases, centers = {row.case_id for row in rows}, {row.center for row in rows if row.center}
    print(f"{out}: {len(rows):,} slides of {len(cases):,} cases and {len(centers):,} centres; paths hang below {root}")


@app.command("plan")
@with_options(PlanConfig)
def plan(
    given: dict[str, Any],
    config_file: Path | None,
    manifest: Path | None = argument("MANIFEST", "Manifest of slides (CSV)."),
    out: Out = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that look at slides [number of cores].", show_default=False)
    ] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for a picture of every slide.", show_default=False)
    ] = None,
) -> None:
    """Audit slides, find tissue, sample patches; writes PLAN.h5 and PLAN.audit.csv. Uses no accelerator."""
    from pipeline.files import require_new_file
    from stages.plan_slides import audit_table, estimate

    config, paths = resolve(PlanConfig, "plan", given, config_file, {"manifest": manifest, "out": out})
    require_new_file(paths["out"], "Delete it first, or choose another --out.")
    made = _make_plan(paths["manifest"], config, paths["out"], workers, overlays)
    print(audit_table(made))
    print(estimate(made))
    print(f"plan {made.hash[:12]} is in {paths['out']}")
    raise typer.Exit(EXIT_OK if all(row.status == "ok" for row in made.audit) else EXIT_PARTIAL)


def _make_plan(manifest: Path, config: PlanConfig, out: Path, workers: int | None, overlays: Path | None) -> Any:
    from pipeline.config import to_toml
    from pipeline.files import write_text
    from pipeline.loader import default_workers
    from pipeline.manifest import read_manifest
    from pipeline.plan import write_plan
    from stages.plan_slides import plan_slides

    read = read_manifest(manifest, config.slides_root)
    audit_csv = out.with_suffix(".audit.csv")
    made = plan_slides(read, config, workers=workers or default_workers(), overlays=overlays, audit_csv=audit_csv)
    record = {"manifest": str(manifest), "out": str(out)} | config.record()
    write_text(out.with_suffix(".config.toml"), to_toml({"plan": record}))
    write_plan(made, out)
    return made


@app.command("extract-teacher")
@with_options(ExtractConfig, PlanConfig)
def extract_teacher(
    given: dict[str, Any],
    config_file: Path | None,
    plan: Path | None = argument("PLAN.h5|MANIFEST.csv", "Plan, or a manifest, which is planned first."),
    out: Out = None,
) -> None:
    """Stage one: run the teacher once over the planned patches; writes the store. Run again to continue."""
    from pipeline.plan import read_plan
    from stages import extract_teacher as stage

    config, paths = resolve(ExtractConfig, "extract-teacher", given, config_file, {"plan": plan, "out": out})
    source, store_path = paths["plan"], paths["out"]
    only_plan = sorted((given.keys() & PlanConfig.model_fields.keys()) - ExtractConfig.model_fields.keys())
    if source.suffix.lower() == ".csv":
        plan_config, _ = resolve(PlanConfig, "plan", given, config_file, {})
        source = _plan_beside(source, plan_config, store_path, config.workers)
    elif only_plan:
        flags = ", ".join("--" + name.replace("_", "-") for name in only_plan)
        raise ConfigError(f"{flags}: {source} is a finished plan; these options belong to g2l plan")
    made = read_plan(source)
    extracted = stage.extract_teacher(made, store_path, config, record=_record(config, plan=source, out=store_path))
    print(stage.report(extracted))
    raise typer.Exit(EXIT_PARTIAL if extracted.num_failed else EXIT_OK)


def _record(config: Config, **paths: Path) -> dict[str, Any]:
    """The resolved options and paths of a command, fit for `--config`."""
    return {name: str(value) for name, value in paths.items()} | config.record()


def _plan_beside(manifest: Path, config: PlanConfig, store: Path, workers: int | None) -> Path:
    """Plan a manifest, or take the plan that an earlier call made for the same store by the same options."""
    from pipeline.plan import read_plan
    from stages.plan_slides import audit_table, estimate

    path = store.with_name(store.name.removesuffix(".zarr") + ".plan.h5")
    if path.exists():
        if read_plan(path).config != config:
            raise ConfigError(f"{path} was made by other options. Delete it, or choose another --out")
        print(f"using the plan {path}")
        return path
    made = _make_plan(manifest, config, path, workers, None)
    print(audit_table(made))
    print(estimate(made))
    return path


@app.command("train-student")
@with_options(TrainConfig)
def train_student(
    given: dict[str, Any],
    config_file: Path | None,
    store: Path | None = argument("STORE.zarr", "Finished store of stage one."),
    out: Out = None,
) -> None:
    """Stage two: train student and projector against the store; writes the run directory. Run again to continue."""
    from pipeline import distributed
    from pipeline.store import Store
    from stages import train_student as stage

    config, paths = resolve(TrainConfig, "train-student", given, config_file, {"store": store, "out": out})
    trained = stage.train_student(Store(paths["store"]), paths["out"], config)
    if distributed.is_leader():
        print(stage.report(trained))


@app.command("export")
def export(
    run: Path = typer.Argument(..., metavar="RUN", help="Finished run directory."),
    out: Path = typer.Option(..., "--out", help="Folder to write the student to."),
) -> None:
    """Copy the trained student out of a run, and prove that timm loads it to the same embeddings."""
    from stages.export_run import export_student

    print(export_student(run, out))


@app.command("inspect")
def inspect(path: Path = typer.Argument(..., metavar="PLAN|STORE|RUN", help="What to look at.")) -> None:
    """Say what a plan, a store or a run holds, and how far it has come."""
    from stages.inspect_outputs import inspect_path

    print(inspect_path(path))


@app.command("verify")
def verify(
    store: Path = typer.Argument(..., metavar="STORE.zarr", help="Store to check."),
    weights: Annotated[
        Path | None, typer.Option(help="The teacher's weights [as in the store].", show_default=False)
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Rows to embed again; 0 for none.")] = 64,
    device: Annotated[str, typer.Option(help="cuda, cpu or auto.")] = "auto",
) -> None:
    """Recompute every checksum, embed a sample of rows again, and report the largest difference."""
    from stages.verify_store import verify_store

    text, good = verify_store(store, weights, sample, device)
    print(text)
    raise typer.Exit(EXIT_OK if good else EXIT_ERROR)


@app.command("models")
def models() -> None:
    """The table of encoders."""
    from stages.inspect_outputs import models_table

    print(models_table())


@app.command("demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("demo-out"),
) -> None:
    """Both stages on a real slide, with figures and pictures; a few minutes on two cores."""
    from stages.demo import run_demo

    raise typer.Exit(run_demo(out))


def main() -> None:
    """Entry point: errors without a traceback, and exit codes as in `errors`."""
    try:
        code = app(standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
    except G2LError as error:
        code = _fail(str(error), error)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except OSError as error:
        code = _fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), error)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("click", "typer"):
            raise
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        code = EXIT_ERROR
    sys.exit(code or EXIT_OK)


def _fail(message: str, error: BaseException) -> int:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        raise error
    print(f"error: {message}", file=sys.stderr)
    return EXIT_ERROR


if __name__ == "__main__":
    main()
