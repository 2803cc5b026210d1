"""Look at the machine, and at a manifest, store or run, before hours are spent; say what to do about each finding."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.errors import EXIT_ERROR, EXIT_OK, G2LError
from pipeline.base.outside import file_trouble
from pipeline.cohort.manifest.read import is_manifest
from pipeline.cohort.walk import SLIDE_SUFFIXES
from pipeline.config.model_names import is_run
from pipeline.disk.objects.urls import as_url, shown_url
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.remote.opening import open_store
from pipeline.student.student_json import STUDENT_JSON
from stages.doctor.estimate import TriedSlides
from stages.doctor.findings import Finding, describe, trouble
from stages.doctor.installed import look_at_gpus, look_at_packages, look_at_processors, look_at_weights
from stages.doctor.place import look_at_place, nearest_folder
from stages.doctor.work import look_at_manifest, look_at_run, look_at_store, seconds_of_teacher

PLAN_ENDINGS = (".h5", ".hdf5")
STORE_ENDING = ".zarr"
STORE_PARTS = ("embedding", "status", "plan", "shards")
"""Folders in every store."""
LOST_METADATA = (
    "copy that file from where the store was made, or the whole store anew and `g2l verify` it; without it the "
    "embeddings cannot be read. If nothing else is in the folder, delete it: `g2l extract-teacher` makes a store"
)


def doctor(path: Path | None, place: Path | None, teacher: str | None, slides: TriedSlides) -> tuple[str, int]:
    """Look at everything; returns the text and the exit code, 1 if there is trouble.

    Args:
        path: a manifest, a store (or its address) or a run; `None` for the machine alone.
        place: the folder that outputs will go to, perhaps one still to be made; by default the input's, or the one that
            the command was called in.
        teacher: an encoder to time, for the estimate.
        slides: how slides are planned, and where they are.

    Raises:
        G2LError: `path` is none of them.
    """
    kind = kind_of(path) if path is not None else ""
    is_local = path is not None and not as_url(path)
    place = place or (Path(os.path.realpath(path)).parent if path is not None and is_local else Path.cwd())
    seconds: float | None = None
    models = [*look_at_gpus(), *look_at_weights()]
    if teacher:
        timed, seconds = seconds_of_teacher(teacher, slides.grid.patch_px)
        models.append(timed)
    sections: list[tuple[str, Iterable[Finding]]] = [
        ("installed", list(look_at_packages())),
        ("machine", list(look_at_processors())),
        ("models", models),
        ("outputs", list(look_at_place(place))),
    ]
    if path is not None:
        shown = shown_url(url) if (url := as_url(path)) else path
        sections.append((f"{kind} {shown}", _look_at(path, kind, nearest_folder(place), seconds, slides)))
    text, is_bad = describe(sections)
    return text, EXIT_ERROR if is_bad else EXIT_OK


def kind_of(path: Path) -> str:
    """What lies at a path: "manifest", "store", perhaps one without its metadata, or "run".

    Raises:
        G2LError: none of them, or it may not be read.
    """
    if as_url(path):
        return "store"
    require_rights(path)
    if (path / METADATA).exists() or lacks_metadata(path):
        return "store"
    if is_run(path):
        return "run"
    if path.is_file() and (path.suffix.lower() == ".csv" or is_manifest(path)):
        return "manifest"
    if os.path.lexists(path):
        why = "" if path.is_dir() else file_trouble(path)
        raise G2LError(f"{path} is no manifest (CSV), store or run{why and ': '}{why}. {_what_then(path)}")
    raise G2LError(f"{path} does not exist. {_what_then(path)}")


def require_rights(path: Path) -> None:
    """See that a path may be read, if anything is there.

    Raises:
        G2LError: it may not, or a folder above it; says which.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        raise G2LError(
            f"{path}: one of the folders above it may not be read by this user. Ask for the right to enter it "
            "(`ls -ld` shows who has it), or name a path that you may read"
        ) from None
    except (OSError, ValueError):
        return  # nothing is there
    if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
        kind, mend = ("folder", "chmod u+rx {}") if is_folder else ("file", "chmod u+r {}")
        if os.stat(path).st_uid != os.geteuid():  # what u says is the owner's right alone
            mend = ("chmod -R g+rX {}" if is_folder else "chmod g+r {}") + ", or o where you are not of its group"
        raise G2LError(
            f"{path} is a {kind} that this user may not read. Whoever owns it can allow it: {mend.format(path)}; or "
            "copy it to a place of your own"
        )


def lacks_metadata(path: Path) -> bool:
    """Whether a folder is that of a store, by its name or its parts, and has no metadata."""
    if not path.is_dir() or (path / METADATA).exists() or is_run(path):
        return False
    return path.suffix == STORE_ENDING or sum((path / name).is_dir() for name in STORE_PARTS) > 1


def _what_then(path: Path) -> str:
    """What to do with what a doctor does not look at."""
    if path.is_dir() and (stores := sorted(place.parent for place in path.glob(f"*/{METADATA}"))):
        return f"There is a store in it: g2l doctor {stores[0]}"
    if path.is_dir() and (tables := sorted(path.glob("*.csv"))):
        return f"There is a table in it: g2l doctor {tables[0]}"
    if (path / STUDENT_JSON).is_file():
        return f"It is an exported student: g2l inspect {path} shows it"
    if path.is_dir():
        return (
            f"If slides are in it, make a manifest of them first: g2l make-manifest {path} --out slides.csv, and then "
            f"g2l doctor slides.csv --slides-root {path}"
        )
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return (
            f"It is a slide by its name. Make a manifest of its folder first: g2l make-manifest {path.parent} --out "
            f"slides.csv, and then g2l doctor slides.csv --slides-root {path.parent}, which reads the first slides"
        )
    if path.suffix.lower() in PLAN_ENDINGS:
        return f"Of a plan it looks at the manifest that it was made from; g2l inspect {path} shows the plan"
    return "`g2l inspect` looks at plans and students"


def _look_at(path: Path, kind: str, place: Path, teacher_seconds: float | None, slides: TriedSlides) -> list[Finding]:
    """The findings about the input; damage is one of them."""
    try:
        if kind == "manifest":
            return list(look_at_manifest(path, place, teacher_seconds, slides))
        if kind == "run":
            return list(look_at_run(path))
        if not as_url(path) and lacks_metadata(path):
            return [trouble(kind, f"{path} looks like a store, but has no {METADATA}", LOST_METADATA)]
        with open_store(path, tell=say) as store:
            return list(look_at_store(store, slides.slides_root))
    except G2LError as error:
        return [trouble(kind, str(error), "see `g2l verify`, or make it again")]
