"""What an earlier call of `g2l reproduce` left in its folder: put aside while other values are made, and put back if
they cannot be made.

Embeddings stay, for they are kept by what they are of. Only a kill that cannot be caught loses what was put aside.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.disk.asides import aside_name
from pipeline.evaluate.report_folder import EMBEDDINGS_FOLDER, EVALUATE_OPTIONS_FILE
from pipeline.public_sets.comparison_file import COMPARISON_FILE
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE

TABLE_FILE, LEFT_OUT_FILE = "table.csv", "left_out.csv"
IMAGES_FOLDER, REPORT_FOLDER = "images", "report"
COMPARISON_PICTURE, FIGURE_1_TABLE, FIGURE_1_PICTURE = "comparison.png", "figure_1.csv", "figure_1.png"
RESULTS = (COMPARISON_FILE, COMPARISON_PICTURE, FIGURE_1_TABLE, FIGURE_1_PICTURE)
PAPER_TABLES = ("table_*.csv", "table_*.png")


def results_of(out: Path) -> list[Path]:
    """The files of values in the folder, but for the report."""
    named = [out / name for name in RESULTS]
    return [path for path in (*named, *paper_tables_of(out)) if path.exists()]


def paper_tables_of(out: Path) -> list[Path]:
    """The paper's tables in the folder."""
    return sorted(path for pattern in PAPER_TABLES for path in out.glob(pattern))


@contextmanager
def put_aside(out: Path, *, with_images: bool) -> Iterator[None]:
    """Put what the folder holds of an earlier call aside while the block runs; put it back if the block fails.

    Args:
        with_images: the images that the set's reader has unpacked are of another set or place.
    """
    aside = out / aside_name("earlier")
    aside.mkdir()
    try:
        for path in _all_of(out, with_images=with_images):
            path.rename(aside / path.name)
        if (aside / REPORT_FOLDER / EMBEDDINGS_FOLDER).exists():
            (out / REPORT_FOLDER).mkdir()
            with suppress(FileNotFoundError):  # by this record `evaluate` knows its folder
                shutil.copy2(aside / REPORT_FOLDER / EVALUATE_OPTIONS_FILE, out / REPORT_FOLDER)
            _move_embeddings(aside, out)
        yield
    except BaseException:
        for path in _all_of(out, with_images=with_images):
            if path.name == REPORT_FOLDER and (path / EMBEDDINGS_FOLDER).exists():
                (aside / REPORT_FOLDER).mkdir(exist_ok=True)
                _move_embeddings(out, aside)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in list(aside.iterdir()):
            path.rename(out / path.name)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _all_of(out: Path, *, with_images: bool) -> list[Path]:
    others = [REPRODUCE_OPTIONS_FILE, TABLE_FILE, LEFT_OUT_FILE, REPORT_FOLDER, *([IMAGES_FOLDER] * with_images)]
    return [*results_of(out), *(out / name for name in others if (out / name).exists())]


def _move_embeddings(source: Path, target: Path) -> None:
    """Move the embeddings of one folder's report to another's."""
    kept = Path(REPORT_FOLDER, EMBEDDINGS_FOLDER)
    (source / kept).rename(target / kept)
