"""Read a set of PathoROB that was exported to images.

PathoROB publishes each set as Parquet on its hub page, with the columns image, subset, slide_id, patch_id,
biological_class and medical_center. Parquet is not read here: the lines in the set's recipe export it to
`metadata.csv`, which has these columns but the image, and `images/SLIDE_ID-PATCH_ID.png`. That name is the id by which
PathoROB itself keeps a patch (`pathorob/features/data_manager.py`).
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.disk.label_words import is_unknown
from pipeline.disk.tables import read_table, refuse
from pipeline.public_sets.members import Members, Row, first_folder, require_members
from pipeline.report.content import Exclusion

PATHOROB_COLUMNS = ("subset", "slide_id", "patch_id", "biological_class", "medical_center")
EXPORTED = "metadata.csv"


def read_members(root: Path, _images: Path, _options: Mapping[str, str]) -> Members:
    """The patches, with PathoROB's columns; a patch has a row for each subset that it is in.

    Raises:
        BenchmarkError: the export is missing or damaged.
    """
    first_folder(root, ("images",), "a set of PathoROB that was exported as its recipe says")
    try:
        records, problems = read_table(root / EXPORTED, PATHOROB_COLUMNS, ",")
        refuse(root / EXPORTED, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for line, record in records:
        cells = {name: record[name].strip() for name in PATHOROB_COLUMNS}
        name = f"{cells['slide_id']}-{cells['patch_id']}.png"
        if empty := [column for column, cell in cells.items() if is_unknown(cell)]:
            left_out.append(Exclusion(name, f"{', '.join(empty)} is empty (line {line} of {EXPORTED})"))
        elif "/" in name or not (root / "images" / name).is_file():
            left_out.append(Exclusion(name, f"there is no such image (line {line} of {EXPORTED})"))
        else:
            rows.append(cells | {"path": f"images/{name}"})
    return require_members(Members(tuple(rows), root, tuple(left_out)), root, "patch of PathoROB")
