"""What can be wrong with a manifest beyond its cells: missing files, one slide under several ids, mixed cases."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline.base.outside import NO_FILE, file_trouble
from pipeline.cohort.copies import copies_of_slides
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.disk.file_names import name_trouble
from pipeline.disk.label_words import cell_value
from pipeline.disk.objects.places import ObjectPath, place_trouble, real_name
from pipeline.disk.objects.present import absent_places
from pipeline.disk.tables import Problem, composed, refuse

MOST_SHOWN = 5
"""Files, and lines of each, that a note of shared annotations lists. Our choice."""


def missing_slides(manifest: Manifest) -> list[Problem]:
    """Slides that are not there, but for those whose addresses cannot be.

    Raises:
        ObjectError: a bucket cannot be asked for its slides.
    """
    named = [row for row in manifest.rows if row.path and not place_trouble(manifest.slides_root, row.path)]
    places = [(row, manifest.slide_path(row)) for row in named]
    absent = absent_places(place for _, place in places)
    return [
        (row.line, f"no slide file {place}" if absent[place] == NO_FILE else f"{place}: {absent[place]}")
        for row, place in places
        if place in absent
    ]


def missing_annotations(manifest: Manifest) -> list[Problem]:
    """Files of annotations that are none, but for those in a bucket, which are not read at all."""
    annotations = [(row, file) for row in manifest.rows if (file := manifest.annotations_path(row))]
    return [
        (
            row.line,
            f"no file of annotations {file}, of the slide {row.slide_id!r}{_found_elsewhere(manifest, row)}"
            if why == NO_FILE
            else f"annotations {file} of the slide {row.slide_id!r}: {why}",
        )
        for row, file in annotations
        if not isinstance(file, ObjectPath) and (why := file_trouble(file))
    ]


def _found_elsewhere(manifest: Manifest, row: ManifestRow) -> str:
    """Where a file of annotations is that is not at its place: beside the slide, or below the manifest's folder; "" if
    it is at neither.
    """
    name, slide = Path(row.annotations or ""), manifest.slide_path(row)
    places = [manifest.path.parent / name, manifest.path.parent / name.name]
    places += [] if isinstance(slide, ObjectPath) else [slide.parent / name, slide.parent / name.name]
    for place in places:
        if os.path.isfile(place):
            return f"; there is one at {os.path.abspath(place)}: write that path"
    return ""


def repeated_ids(rows: Iterable[ManifestRow]) -> list[Problem]:
    """Ids that several rows share, or that differ only in the encoding of accents."""
    return [
        (
            group[0].line,
            f"slide_id {slide_id!r} is given {_lines(group)}; every slide needs its own id"
            + ("" if len({row.slide_id for row in group}) == 1 else " (they differ only in the encoding of accents)"),
        )
        for slide_id, group in _groups(rows, lambda row: composed(row.slide_id)).items()
        if slide_id.strip()
    ]


def unclear_files(manifest: Manifest) -> list[Problem]:
    """Paths that match several files, addresses that name no object, and annotations that hang below a bucket."""
    rows, root, problems = [row for row in manifest.rows if row.path], manifest.slides_root, list[Problem]()
    for row in rows:
        if trouble := place_trouble(root, row.path):
            problems.append((row.line, trouble))
        elif not isinstance(manifest.slide_path(row), ObjectPath) and (trouble := name_trouble(root / row.path)):
            problems.append((row.line, f"path {row.path!r} {trouble}"))
    return problems + [
        (row.line, f"annotations {file} are not read from a bucket; give an absolute path of a file")
        for row in manifest.rows
        if isinstance(file := manifest.annotations_path(row), ObjectPath)
    ]


def repeated_files(manifest: Manifest) -> list[Problem]:
    """Slide files with several ids, whatever links and dots their paths contain."""
    groups = _groups(manifest.rows, lambda row: _inode(manifest.slide_path(row)))
    return [
        (
            group[0].line,
            f"the file {real_name(manifest.slide_path(group[0]))} has several ids {_lines(group)}; "
            "keep one row per file",
        )
        for group in groups.values()
        if group[0].path and len({row.slide_id for row in group}) > 1
    ]


def shared_annotations(manifest: Manifest) -> tuple[str, ...]:
    """A note of files of annotations that several slides share, as cells copied by mistake do. No refusal: slides
    without regions may share an empty file.
    """
    files = [(row, file) for row in manifest.rows if (file := manifest.annotations_path(row))]
    inodes = {row.slide_id: _inode(file) for row, file in files}
    groups = list(_groups((row for row, _ in files), lambda row: inodes[row.slide_id]).values())
    shown = "; ".join(f"{group[0].annotations} {_lines(group[:MOST_SHOWN])}" for group in groups[:MOST_SHOWN])
    cut = len(groups) > MOST_SHOWN or any(len(group) > MOST_SHOWN for group in groups)
    words = f"several slides have the same file of annotations: {shown}{' and more' if cut else ''}"
    return (f"{manifest.path}: {words}. Is it of each of them?",) if groups else ()


def _inode(path: Path) -> str:
    """A key shared by all names of a file, links and hard links; for a missing file its path, for an object its
    address.
    """
    if isinstance(path, ObjectPath):
        return str(path)
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return os.path.realpath(path)
    return f"{stat.st_dev}:{stat.st_ino}"


def slides_with_copies(manifest: Manifest) -> list[Problem]:
    """Slides with several ids, through copies of a file or several files of one DICOM series; of those in buckets only
    the audit knows.
    """
    places = [(row, manifest.slide_path(row)) for row in reversed(manifest.rows) if row.path]
    rows = list({_inode(place): row for row, place in places if not isinstance(place, ObjectPath)}.values())
    problems = []
    for indices in copies_of_slides([manifest.slide_path(row) for row in rows]):
        group = sorted((rows[index] for index in indices), key=lambda row: row.line)
        named = " and ".join(f"{row.slide_id!r} ({manifest.slide_path(row)})" for row in group)
        problems.append(
            (
                group[0].line,
                f"one slide has several ids {_lines(group)}: {named} are copies, or files of "
                "one DICOM series. Keep one row per slide",
            )
        )
    return problems


def refuse_near_copies(manifest: Manifest, groups: Iterable[tuple[Iterable[str], str]]) -> None:
    """Refuse slides of several cases that are one slide; `groups` has their ids and by what it is known.

    Raises:
        ManifestError: there are such slides.
    """
    rows = {row.slide_id: row for row in manifest.rows}
    problems = []
    for ids, by in groups:
        group = sorted((rows[slide_id] for slide_id in ids), key=lambda row: row.line)
        if len({row.case_id for row in group}) > 1:
            named = " and ".join(f"{row.slide_id!r} ({manifest.slide_path(row)})" for row in group)
            problems.append(
                (
                    group[0].line,
                    f"one slide has several cases {_lines(group)}: {named} are one by {by}, though "
                    "their files differ. Keep one row per slide",
                )
            )
    refuse(manifest.path, problems)


def mixed_cases(rows: Iterable[ManifestRow], records: Mapping[int, Mapping[str, str]]) -> list[Problem]:
    """Cases whose rows do not all have the same split, or all have none; ignores rows with a wrong split."""
    problems = []
    sound = [row for row in rows if row.split or not cell_value(records[row.line].get("split", ""))]
    for case_id, group in _groups(sound, lambda row: row.case_id).items():
        parts = [(name, [row for row in group if row.split == name]) for name in ("train", "val", None)]
        words = [f"{name or 'none given'} {_lines(part)}" for name, part in parts if part]
        if case_id and len(words) > 1:
            problems.append(
                (
                    group[0].line,
                    f"case {case_id!r} is in more than one split: {', '.join(words)}; give "
                    "all its rows the same split, or none",
                )
            )
    return problems


def _groups(rows: Iterable[ManifestRow], key: Callable[[ManifestRow], str]) -> dict[str, list[ManifestRow]]:
    """Groups of two or more rows that share a key, by key; each in the order of lines."""
    groups: dict[str, list[ManifestRow]] = {}
    for row in sorted(rows, key=lambda row: row.line):
        groups.setdefault(key(row), []).append(row)
    return {name: group for name, group in groups.items() if len(group) > 1}


def _lines(rows: Iterable[ManifestRow]) -> str:
    """The lines of rows in words, or their paths if they are not from a file."""
    rows = list(rows)
    if not all(row.line for row in rows):
        return "for " + ", ".join(row.path for row in rows)
    return f"on line{'s' * (len(rows) > 1)} " + ", ".join(str(row.line) for row in rows)
