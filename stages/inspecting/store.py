"""A store in words, for `g2l inspect`: its teachers, how far each has come, and its plan."""

from pipeline.base.console import counted, table
from pipeline.base.errors import ConfigError
from pipeline.base.units import format_bytes
from pipeline.encoders.names import other_encoders
from pipeline.store.format import Status
from pipeline.store.shards import LocalShards
from pipeline.store.store import Store, StoredTeacher
from stages.inspecting.plan import plan_facts, with_tables
from stages.inspecting.recipe import recipe_of_store
from stages.reports.extract import dropped_words


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
        *recipe_of_store(store),
        ("pixels", store.image_format),
        *_origin(first),
        ("shards", shards),
        *_wrong_files(first),
        ("rows", _row_counts(first)),
        ("plan", first.plan_hash),
        *plan_facts(store.plan, is_imported="imported" in first.settings),
        ("weights", first.record["weights_sha256"]),
        *(fact for teacher in further for fact in _further_facts(teacher)),
    ]
    return with_tables(store.plan, table(rows))


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
