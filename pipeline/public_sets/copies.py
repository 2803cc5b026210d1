"""Leave out copies of a picture that give an answer away: published sets hold some, and `evaluate` refuses them.

Two members are copies if their RGB pixels are the same. Copies of different labels are all left out: the set
contradicts itself. Of copies in several cases or splits one stays, that of the test part if there is one, so that what
is scored stays what it was. Members of one colour throughout are alike by nature and stay.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.disk.file_names import file_named
from pipeline.evaluate.folds import SPLITS
from pipeline.evaluate.images import scan_images
from pipeline.public_sets.members import Row
from pipeline.report.content import Exclusion


def without_leaks(
    rows: Sequence[Row], images_root: Path, workers: int
) -> tuple[tuple[Row, ...], tuple[Exclusion, ...]]:
    """The rows without such copies, and what was left out. Reads every image once."""
    scanned = scan_images([file_named(images_root / row["path"]) for row in rows], workers)
    by_picture: dict[str, list[int]] = {}
    for index in scanned.usable().tolist():
        if index not in scanned.plain:
            by_picture.setdefault(scanned.pixels[index], []).append(index)
    left_out: dict[int, str] = {}
    for copies in by_picture.values():
        left_out |= _leaking([rows[i] for i in copies], copies)
    kept = tuple(row for index, row in enumerate(rows) if index not in left_out)
    return kept, tuple(Exclusion(rows[i]["path"], why, by_rule=True) for i, why in sorted(left_out.items()))


def _leaking(members: Sequence[Row], places: Sequence[int]) -> dict[int, str]:
    """Which copies of one picture are left out, by their place in the set, and why."""
    if len({row["label"] for row in members}) > 1:
        listed = ", ".join(row["path"] for row in members[:2])
        return dict.fromkeys(places, f"a copy, pixel for pixel, under another label ({listed})")
    if len({(_case(row), row.get("split", "")) for row in members}) == 1:
        return {}
    stays = max(range(len(members)), key=lambda i: (_rank(members[i]), -i))
    why = f"a copy, pixel for pixel, of {members[stays]['path']}, which is of another case or split"
    same = (_case(members[stays]), members[stays].get("split", ""))
    differing = (i for i, row in enumerate(members) if (_case(row), row.get("split", "")) != same)
    return {places[i]: why for i in differing}


def _case(row: Row) -> str:
    """What keeps a row together with others."""
    return row.get("case_id") or row.get("slide_id") or ""


def _rank(row: Row) -> int:
    """The test part comes last in `SPLITS`, and counts most."""
    return SPLITS.index(row["split"]) if row.get("split") else -1
