"""What an earlier call of `g2l reproduce` left in its folder: put aside while other values are made, and put back if
they cannot be made.

Embeddings stay, for they are kept by what they are of. A signal puts back at once what was put aside; after a kill that
cannot be caught, or a power cut, the next call does.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.base import interrupts
from pipeline.disk.asides import aside_name, is_aside_of, is_left_over, remove
from pipeline.disk.folders import move
from pipeline.evaluate.report_folder import EMBEDDINGS_FOLDER, EVALUATE_OPTIONS_FILE
from pipeline.public_sets.comparison_file import COMPARISON_FILE
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE

TABLE_FILE, LEFT_OUT_FILE = "table.csv", "left_out.csv"
IMAGES_FOLDER, REPORT_FOLDER = "images", "report"
COMPARISON_PICTURE, FIGURE_1_TABLE, FIGURE_1_PICTURE = "comparison.png", "figure_1.csv", "figure_1.png"
RESULTS = (COMPARISON_FILE, COMPARISON_PICTURE, FIGURE_1_TABLE, FIGURE_1_PICTURE)
PAPER_TABLES = ("table_*.csv", "table_*.png")
MOVING, ASIDE, OUTDATED = "moving", "earlier", "outdated"
"""Names, before the rest of an aside's, of the folder of what is put aside: while things are moved there or back, while
all of it is there, and once it is of no use any more.
"""


def results_of(out: Path) -> list[Path]:
    """The files of values in the folder, but for the report."""
    named = [out / name for name in RESULTS]
    return [path for path in (*named, *paper_tables_of(out)) if path.exists()]


def paper_tables_of(out: Path) -> list[Path]:
    """The paper's tables in the folder."""
    return sorted(path for pattern in PAPER_TABLES for path in out.glob(pattern))


@contextmanager
def put_aside(out: Path, *, with_images: bool) -> Iterator[None]:
    """Put what the folder holds of an earlier call aside while the block runs; put it back if the block fails, or a
    signal ends the process in it.

    Args:
        with_images: the images that the set's reader has unpacked are of another set or place.
    """
    moving = out / aside_name(MOVING)
    earlier = _called(moving, ASIDE)

    def undo() -> None:
        bring_back(out, moving if moving.exists() else earlier, with_images=with_images)

    with interrupts.guard:
        key = interrupts.undo_at_end(undo, earlier)
        moving.mkdir()
    try:
        with interrupts.guard:
            for path in _all_of(out, with_images=with_images):
                move(path, moving / path.name)
            os.rename(moving, earlier)
        if (earlier / REPORT_FOLDER / EMBEDDINGS_FOLDER).exists():
            (out / REPORT_FOLDER).mkdir()
            with suppress(FileNotFoundError):  # by this record `evaluate` knows its folder
                shutil.copy2(earlier / REPORT_FOLDER / EVALUATE_OPTIONS_FILE, out / REPORT_FOLDER)
            _move_embeddings(earlier, out)
        yield
    except BaseException:
        with interrupts.guard:
            undo()
        raise
    else:
        with interrupts.guard:
            os.rename(earlier, _called(earlier, OUTDATED))
        remove(_called(earlier, OUTDATED))
    finally:
        interrupts.settled(key)


def put_back_left(out: Path) -> None:
    """Put back what a killed call had put aside, so that nothing is lost whichever call comes next. The caller holds
    the lock of the folder.
    """
    for path in sorted(out.iterdir()):
        if any(is_aside_of(path.name, name) for name in (MOVING, ASIDE)) and is_left_over(path, locked=True):
            bring_back(out, path, with_images=(path / IMAGES_FOLDER).exists())


def bring_back(out: Path, aside: Path, *, with_images: bool) -> None:
    """Put what is aside back in the place of what was made since; nothing if it is back already. Embeddings that were
    made since are kept. Needs no room on the disk, which may be full.
    """
    if not aside.exists():
        return
    if is_aside_of(aside.name, ASIDE):  # else nothing is new: what is not there was not moved, or is back
        _remove_new(out, aside, with_images=with_images)
        os.rename(aside, aside := _called(aside, MOVING))
    for path in sorted(aside.iterdir()):
        remove(out / path.name)  # half gone, where a kill met a move between layers
        move(path, out / path.name)
    aside.rmdir()


def _remove_new(out: Path, earlier: Path, *, with_images: bool) -> None:
    """Remove what was made since, but for embeddings, which are moved to those that were put aside."""
    report = out / REPORT_FOLDER
    for path in (*_all_of(out, with_images=with_images), *(report.iterdir() if report.exists() else ())):
        if path not in (report, report / EMBEDDINGS_FOLDER):
            remove(path)
    if (report / EMBEDDINGS_FOLDER).exists():
        (earlier / REPORT_FOLDER).mkdir(exist_ok=True)
        remove(earlier / REPORT_FOLDER / EMBEDDINGS_FOLDER)  # half gone, as above
        _move_embeddings(out, earlier)
    remove(report)


def _called(aside: Path, name: str) -> Path:
    """The same folder by another of its names."""
    return aside.with_name(name + aside.name[aside.name.index(".") :])


def _all_of(out: Path, *, with_images: bool) -> list[Path]:
    others = [REPRODUCE_OPTIONS_FILE, TABLE_FILE, LEFT_OUT_FILE, REPORT_FOLDER, *([IMAGES_FOLDER] * with_images)]
    return [*results_of(out), *(out / name for name in others if (out / name).exists())]


def _move_embeddings(source: Path, target: Path) -> None:
    """Move the embeddings of one folder's report to another's."""
    kept = Path(REPORT_FOLDER, EMBEDDINGS_FOLDER)
    move(source / kept, target / kept)
