"""Look at what the stages wrote: plans, stores, runs, students, studies, reproductions, and the table of encoders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.console import counted, say, table
from pipeline.base.errors import CheckpointError, ConfigError, EncoderError, G2LError
from pipeline.base.outside import is_there, read_json, read_toml, reading
from pipeline.base.units import format_bytes
from pipeline.cohort.cases import counted_cases
from pipeline.cohort.draws.spent import budget_lines
from pipeline.cohort.plan import STATUSES, Plan, read_plan
from pipeline.config.base import RECIPE
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX, is_run
from pipeline.config.recipes import RECIPES, Departure, departures, departures_of_views
from pipeline.disk.objects.urls import as_url
from pipeline.disk.raw_arrays import METADATA
from pipeline.encoders.hub import cached_weights, ways_to_weights, weights_here
from pipeline.encoders.left_out import is_open_address, left_out_name
from pipeline.encoders.model_config import CONFIG_FILE, input_side, read_model_config
from pipeline.encoders.names import other_encoders
from pipeline.encoders.table import ENCODERS, EncoderSpec, named_spec
from pipeline.public_sets.comparison_file import COMPARISON_FILE, read_comparisons
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE
from pipeline.sampling import TRAIN, VAL
from pipeline.store.format import Status
from pipeline.store.remote.opening import open_store
from pipeline.store.shards import LocalShards
from pipeline.store.store import Store, StoredTeacher
from pipeline.student.adapters import ADAPTERS_FOLDER
from pipeline.student.describe import projector_shape, takes_alpha
from pipeline.student.exported import ExportedStudent, is_student, read_student
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE
from pipeline.study.folder import STUDY_FILE, StudyFolder
from pipeline.training.held_out import best_words, history_table, vals_by_teacher
from pipeline.training.identity import loss_weights, recorded_departures, recorded_teachers
from pipeline.training.run_folder import RunFolder
from stages.reports.classes import class_table
from stages.reports.extract import dropped_words
from stages.reports.models import describe_left_out, left_out_table, page_rows
from stages.reports.plan_options import area_lines, cluster_table, plan_choices

STUDENT_FILES = (CONFIG_FILE, "model.safetensors")
"""By these, and `student.json` or a projector, an exported student is known."""
OTHER_FILES = (ONNX_FILE, PROGRAM_FILE, ADAPTERS_FOLDER)
"""What `g2l export` may add."""
STUDY_TABLES = ("table.csv", "pairs.csv", "figure.png")
"""What `g2l ablate` and `g2l curve` write when their runs are done."""


def inspect_path(path: Path) -> str:
    """What a plan, a store, a run, an exported student, a study or a reproduction holds, and how far it has come.

    Raises:
        G2LError: it is none of them.
    """
    if as_url(path) or (path / METADATA).exists():
        with open_store(path, tell=say) as store:
            return describe_store(store)
    if is_run(path):
        return describe_run(RunFolder(path))
    if path.is_file():
        return describe_plan(read_plan(path), path)
    if all((path / name).is_file() for name in STUDENT_FILES) and is_student(path):
        return describe_student(path)
    if is_there(path / STUDY_FILE):
        return describe_study(path)
    if is_there(path / REPRODUCE_OPTIONS_FILE):
        return describe_reproduction(path)
    kinds = "plan, store, run, exported student, study or reproduction"
    raise G2LError(f"{path} is no {kinds}" if path.exists() else f"{path} does not exist")


def describe_plan(plan: Plan, path: Path) -> str:
    """A plan in words."""
    statuses = [row.status for row in plan.audit]
    rows: list[tuple[str, object]] = [
        ("plan", path),
        ("hash", plan.hash),
        *_recipe_of_plan(plan),
        *_plan_facts(plan),
        ("audit", ", ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)),
        ("slides below", plan.slides_root),
    ]
    return _with_tables(plan, table(rows), "\n".join(area_lines(plan.audit)))


def _with_tables(plan: Plan, *texts: str) -> str:
    """Texts and the tables of the plan's classes and clusters, as far as there are any."""
    return "\n\n".join(filter(None, (*texts, class_table(plan), cluster_table(plan))))


def _plan_facts(plan: Plan, *, is_imported: bool = False) -> list[tuple[str, object]]:
    centers = {s.center for s in plan.slides if s.center}
    config = plan.config
    return [
        ("slides", f"{len(plan.slides):,} of {counted_cases(plan.slides)} and {counted(len(centers), 'centre')}"),
        ("patches", f"{plan.num_rows:,}: {plan.count(TRAIN):,} to train on, {plan.count(VAL):,} held out"),
        ("patch", f"{config.patch_px} px at {plan.resolution}, every {config.grid.stride_px} px"),
        *([("tile", f"{config.tile_px} px, the patch in its middle")] if config.has_tiles else []),
        *plan_choices(plan, is_imported=is_imported),
        *(("budget", line) for line in budget_lines(plan.budget)),
    ]


def describe_store(store: Store) -> str:
    """A store in words."""
    first, *further = store.teachers.values()
    done = len(first.shards) - len(first.pending)
    size = first.ledger.num_bytes()
    of_part = f" of part {first.part}" if first.part else ""
    shards = (
        f"{done:,} of {len(first.shards):,}{of_part} done, {first.rows_per_shard:,} rows each, {format_bytes(size)}"
    )
    rows: list[tuple[str, object]] = [
        ("store", store.place),
        ("teacher", _encoder(first)),
        *_embeddings(first),
        *_recipe_of_store(store),
        ("pixels", store.image_format),
        *_origin(first),
        ("shards", shards),
        *_wrong_files(first),
        ("rows", _row_counts(first)),
        ("plan", first.plan_hash),
        *_plan_facts(store.plan, is_imported="imported" in first.settings),
        ("weights", first.record["weights_sha256"]),
        *(fact for teacher in further for fact in _further_facts(teacher)),
    ]
    return _with_tables(store.plan, table(rows))


def _further_facts(teacher: StoredTeacher) -> list[tuple[str, object]]:
    """A further teacher of a store, in words."""
    done = teacher.num_shards - len(teacher.ledger.pending())
    return [
        ("further teacher", _encoder(teacher)),
        *_embeddings(teacher),
        *_origin(teacher),
        ("shards", f"{done:,} of {teacher.num_shards:,} done, {teacher.rows_per_shard:,} rows each"),
        *_wrong_files(teacher),
        ("rows", _row_counts(teacher)),
        ("weights", teacher.record["weights_sha256"]),
    ]


def _wrong_files(teacher: StoredTeacher) -> list[tuple[str, object]]:
    """Files of a teacher's finished shards and rounds that are missing or of another size, as in a copy that was cut
    short; those of a store in a bucket are not looked for.
    """
    if not isinstance(teacher.store.files, LocalShards):
        return []
    wrong = [path for made in teacher.with_rounds for path, _ in made.wrong_files()]
    named = f"missing or of another size: {counted(len(wrong), 'file')} of finished shards; g2l verify lists them"
    return [("files", named)] if wrong else []


def _encoder(teacher: StoredTeacher) -> str:
    """A teacher's encoder, and where its weights are from."""
    record = teacher.record
    return f"{teacher.name} ({record['num_params'] / 1e6:.1f} M parameters, {record['source']}, {record['weights']})"


def _embeddings(teacher: StoredTeacher) -> list[tuple[str, object]]:
    """What a teacher's embeddings are, and of which views."""
    kind, precision = teacher.record["embedding"], teacher.settings["precision"]
    views, rounds = teacher.views_at_hand, teacher.rounds
    strength = f", {views.strength}" if teacher.views_strength else ""
    of_rounds = f", {views.count - teacher.views.count} in rounds" if rounds else ""
    pending = f", view {rounds[-1].own_view} not finished" if rounds and rounds[-1].ledger.pending() else ""
    seen = f"{views.count} of each patch{of_rounds}{pending}, seed {views.seed}{strength}"
    shown = (seen,) if views.count > 1 or rounds else ()
    return [
        ("embedding", f"{kind}, {teacher.width} dimensions, {teacher.dtype}, in {precision}"),
        *(("views", words) for words in shown),
    ]


def _row_counts(teacher: StoredTeacher) -> str:
    """How many rows have which status; those that `--patch-qc` dropped apart."""
    counts = teacher.ledger.status_counts(teacher.shards)
    words = ", ".join(f"{n:,} {name.lower()}" for name, n in counts.items() if n and not Status[name].is_dropped)
    dropped = dropped_words(teacher, counts)
    return f"{words}; dropped by --patch-qc: {dropped}" if dropped else words


def _origin(teacher: StoredTeacher) -> list[tuple[str, object]]:
    """How embeddings came about, as far as the store says: the preflight's doubts, or the files and their proof."""
    rows: list[tuple[str, object]] = []
    if checked := teacher.attributes.get("preflight"):
        rows.append(("preflight", "; ".join(checked["warnings"]) or "nothing doubtful"))
    if imported := teacher.settings.get("imported"):
        proof = teacher.attributes.get("proof")
        proven = f"proven on {proof['rows']} patches" if proof else "not proven to belong to these slides"
        try:
            other = other_encoders(imported["encoders"], teacher.record)
            named = f"; the files name the encoder {', '.join(other)}" if other else ""
        except ConfigError as error:  # imported before this name was known
            named = f"; {error}"
        rows.append(("imported", f"features of {', '.join(imported['layouts'])}; {proven}{named}"))
    return rows


def describe_run(run: RunFolder) -> str:
    """A run in words.

    Raises:
        CheckpointError: its records are damaged.
    """
    with reading(run.identity_path, "damaged", CheckpointError):
        return _run_in_words(run)


def _run_in_words(run: RunFolder) -> str:
    identity, lines = run.read_identity(), run.metrics()
    student, options = identity["student"], identity["options"]
    steps = [line for line in lines if line["kind"] == "step"]
    first, *further = recorded_teachers(identity)
    rows: list[tuple[str, object]] = [
        ("run", run.folder),
        ("student", f"{student['name']} ({student['num_params'] / 1e6:.2f} M parameters, {student['weights']})"),
        ("teacher", first.name),
        *(("further teacher", f"{each.name}, {each.weight:.4g} of the loss") for each in further),
        ("loss", _loss_words(options["loss"], options["alpha"] if takes_alpha(options["loss"]) else None)),
        (
            "steps",
            f"{steps[-1]['step'] if steps else 0:,}, epoch {steps[-1]['epoch'] + 1 if steps else 0} of "
            f"{options['epochs']}",
        ),
        *_recipe(recorded_departures(identity)),
        *_early_stop(run),
        ("finished", "yes" if run.student.exists() else "no: run train-student again to continue"),
    ]
    text = table(rows)
    for teacher, vals in vals_by_teacher(lines).items():
        suffix = f" as {teacher}" if teacher else ""
        text += f"\n\n{vals[-1]['rows']:,} held-out patches{suffix}\n" + history_table(vals)
    kept = run.exported_step() if run.student.exists() else None
    if words := best_words(lines, loss_weights(identity), kept):
        text += f"\n\n{words}"
    return text


def _recipe(named: tuple[str, Sequence[Departure]] | None) -> list[tuple[str, object]]:
    """A recipe, and what departs from it, an option a line; nothing without a recipe."""
    if named is None:
        return []
    name, departed = named
    return [("recipe", name), *(("not the recipe's", f"{each.command} {each.words()}") for each in departed)]


def _recipe_of_plan(plan: Plan) -> list[tuple[str, object]]:
    """The recipe that a plan was made by, and what departs from it as this version has it."""
    recipe = plan.config.recipe
    return _recipe((recipe, departures(recipe, "plan", plan.config.model_dump(mode="json")))) if recipe else []


def _recipe_of_store(store: Store) -> list[tuple[str, object]]:
    """The same of the teacher's embeddings and their plan, by the name in the record of the options; of the plan alone
    where no such record is at hand, as of a store in a bucket.
    """
    path = store.first.folder / "config.toml"
    recipe = None
    if is_there(path):
        with reading(path, "damaged", ConfigError):
            recipe = read_toml(path).get("extract-teacher", {}).get(RECIPE)
    if not (isinstance(recipe, str) and recipe in RECIPES):
        return _recipe_of_plan(store.plan)
    plan = departures(recipe, "plan", store.plan.config.model_dump(mode="json"))
    views = store.first.views_at_hand
    fresh = bool(store.first.rounds)
    return _recipe(
        (recipe, [*plan, *departures_of_views(recipe, views.count, store.first.views_strength, fresh=fresh)])
    )


def _early_stop(run: RunFolder) -> list[tuple[str, object]]:
    """Why a run ended early, if it did."""
    stop = run.stop()
    return [("early stop", stop.words())] if stop else []


def _loss_words(loss: str, alpha: float | None) -> str:
    """A loss and its exponent, if it has one."""
    return loss if alpha is None else f"{loss}, alpha {alpha:g}"


def describe_student(folder: Path) -> str:
    """An exported student in words.

    Raises:
        EncoderError: its files are damaged.
    """
    student = read_student(folder)
    with reading(folder, "a damaged student", EncoderError):
        config, side = read_model_config(folder), input_side(folder)
        projector = folder / student.teachers[0].projector
        teacher_width, student_width = projector_shape(projector)
        size = sum(path.stat().st_size for path in (*(folder / name for name in STUDENT_FILES), projector))
    rows: list[tuple[str, object]] = [
        ("student", folder),
        ("architecture", config["architecture"]),
        ("embedding", f"{student_width} dimensions"),
        ("patch", f"{side} px"),
        ("teacher", f"{teacher_width} dimensions"),
        *_history(student),
        ("files", format_bytes(size)),
        ("beside it", ", ".join(name for name in OTHER_FILES if (folder / name).exists()) or "nothing"),
        ("student loads by", f"timm.create_model('{FOLDER_PREFIX}{folder}', pretrained=True); see its README.md"),
        ("projector by", f"model, transform, projector = g2l.load_student({str(folder)!r})"),
        *(("teacher's projector", f"{name}: {file}") for name, file in student.projector_files().items()),
    ]
    return table(rows)


def _history(student: ExportedStudent) -> list[tuple[str, object]]:
    """What an exported student was made from: of `student.json`, or that there is none."""
    described = student.described
    if described is None:
        return [("plan", student.plan_hash or "not known"), ("note", student.note())]
    training = described.training
    teachers = [each.name for each in described.teachers]
    if len(teachers) > 1:
        teachers = [f"{each.name}, {each.loss_weight:.4g} of the loss" for each in described.teachers]
    return [
        *(("distilled from", teacher) for teacher in teachers),
        ("loss", _loss_words(training.loss, training.alpha)),
        ("exported", f"epoch {training.epoch}, step {training.step:,}"),
        *_recipe(training.recorded_recipe),
        *([("early stop", f"after step {training.stopped.step:,}")] if training.stopped else []),
        ("plan", described.plan_hash),
        ("made by", f"g2l {described.g2l}"),
    ]


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


def models_table(*, everything: bool = False) -> str:
    """The table of encoders, for the terminal; with `everything` also the encoders that are not in it, and why."""
    cells = [
        (
            s.name,
            f"{s.params_m:,.0f} M",
            s.width,
            s.embedding,
            s.patch_px,
            f"{s.mpp:g}" if s.mpp else "",
            "yes" if s.gated else "no",
            "yes" if cached_weights(s) else "no",
            s.licence,
            s.source,
        )
        for s in ENCODERS.values()
    ]
    header = ("name", "parameters", "width", "embedding", "px", "um/px", "gated", "cached", "licence", "weights")
    text = table(cells, header, right=(1, 2, 4, 5))
    others = f"Not in the table:\n{left_out_table()}\n\n" if everything else ""
    return (
        f"{text}\n\n{others}cached: the weights are in the hub's cache on this machine. `g2l models NAME` says how to "
        f"get them.\nAny timm name, {HUB_PREFIX}OWNER/NAME or {FOLDER_PREFIX}FOLDER works as well."
    )


def describe_model(name: str) -> str:
    """One encoder: what it is, and how to get its weights.

    Raises:
        EncoderError: neither the table nor timm knows the name, or it is a folder without a model.
    """
    if left_out_name(name) and not is_open_address(name):
        return describe_left_out(name)
    spec = named_spec(name)
    of_folder = spec.source.startswith(FOLDER_PREFIX)
    if of_folder:
        _check_folder(Path(spec.source.removeprefix(FOLDER_PREFIX)))
    if spec.patch_px == 0 and spec.source.startswith("timm:"):
        _check_known_to_timm(name)
    file = weights_here(spec)
    rows: list[tuple[str, object]] = [
        ("name", spec.name),
        ("weights", spec.source),
        ("architecture", spec.architecture),
        ("arguments", ", ".join(f"{key}={value}" for key, value in spec.arguments.items()) or "none"),
        *_model_facts(spec),
        ("licence", spec.licence),
        ("gated", "yes" if spec.gated else "not known to be"),
        *page_rows(spec),
        ("file" if of_folder else "cached", file or "no"),
    ]
    return table(rows) if of_folder and file else f"{table(rows)}\n\n{ways_to_weights(spec)}"


def _model_facts(spec: EncoderSpec) -> list[tuple[str, object]]:
    """Size, embedding and patches of an encoder, as far as the table knows them."""
    unknown = "as its own configuration says"
    mpp = f"{spec.mpp:g}" if spec.mpp else "an unstated number of"
    return [
        ("parameters", f"{spec.params_m:,.1f} M" if spec.params_m else unknown),
        ("embedding", f"{spec.embedding}, {spec.width} dimensions" if spec.width else unknown),
        ("patches", f"{spec.patch_px} px at {mpp} um/px" if spec.patch_px else unknown),
        ("mean, std", f"{spec.mean}, {spec.std}" if spec.patch_px else unknown),
    ]


def _check_folder(folder: Path) -> None:
    """Refuse a folder that timm does not load as a model.

    Raises:
        EncoderError: it is none.
    """
    if not folder.is_dir():
        raise EncoderError(f"{folder}: no such folder")
    if not (folder / CONFIG_FILE).is_file():
        raise EncoderError(f"{folder}: no {CONFIG_FILE} is in this folder, so it is no model that timm loads")


def _check_known_to_timm(name: str) -> None:
    """Refuse a name that is neither in the table nor timm's. timm is loaded for it, which takes seconds.

    Raises:
        EncoderError: nobody knows the name.
    """
    from pipeline.encoders.build import known_to_timm, mistyped_encoder  # loads torch

    if not known_to_timm(name):
        raise EncoderError(
            f"no encoder is called {name}{mistyped_encoder(name)}; `g2l models` lists those of the table, and any timm "
            "name works"
        )
