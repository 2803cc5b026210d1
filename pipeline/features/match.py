"""Which slide a feature file is of, by its name and, where a tool keeps the slides' subfolders, by its place.

A file is called by the slide's id, or as the slide's file is without its ending; some tools take off more (`.ome` of
`x.ome.tif`), and both are understood. Where slides or files have one name, subfolders tell which is whose. Where a file
could still be of two slides, nobody knows whose features they are: both slides fail, and so do two files that could be
of one slide; the others go on. Left out: looking into the files.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cohort.audit import AuditRow
from pipeline.cohort.copies import copies_of_slides, near_copies, near_copy_warning
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import SlidePlan
from pipeline.cohort.sources import list_folder
from pipeline.disk.file_names import file_named
from pipeline.disk.tables import composed
from pipeline.features.find import FeatureTree, Parts, is_end
from pipeline.features.importing import ImportedSlide
from pipeline.features.registry import all_tools
from pipeline.slides import dicom
from pipeline.slides.staging.objects import refuse_objects


@dataclass(frozen=True)
class Matched:
    """Slides with their feature files.

    Attributes:
        pairs: in the order of ids.
        failed: slides without a file, or without a single one; and files without a slide.
        root: the folder that the slides' paths hang below.
        notes: what was passed over when the slides were listed, or how their manifest was read, in words.
        rows: all slides but the excluded ones.
        excluded: slides of cases that are left out (`features.excluded`).
    """

    pairs: tuple[tuple[ManifestRow, Path], ...]
    failed: tuple[ImportedSlide, ...]
    root: Path
    notes: tuple[str, ...] = ()
    rows: tuple[ManifestRow, ...] = ()
    excluded: tuple[AuditRow, ...] = ()


def match_slides(tree: FeatureTree, manifest_path: Path | None, slides_root: Path) -> Matched:
    """Find the slide of every feature file, among those of a manifest or else all below `slides_root`.

    Raises:
        ManifestError: the manifest or the folder of slides cannot be used.
        ConfigError: a slide is in a bucket.
    """
    notes: tuple[str, ...] = ()
    if manifest_path:
        manifest = parse_manifest(manifest_path, slides_root)
        refuse_objects(map(manifest.slide_path, manifest.rows), "import-features copies none: copy it to a folder")
        rows, root, notes = list(manifest.rows), manifest.slides_root, manifest.notes
    else:
        listed = list_folder(slides_root)
        rows, root = list(listed.rows), slides_root
        notes = tuple(f"{slides_root}: {note}" for note in listed.notes)
    candidates = _match_files(rows, root, tree, manifest_path)
    pairs = {c.slides[0].slide_id: (c.slides[0], c.path) for c in candidates.values() if not c.reason}
    failed = _failed(rows, root, pairs.keys(), candidates)
    return Matched(tuple(pairs[slide_id] for slide_id in sorted(pairs)), tuple(failed), root, notes, tuple(rows))


@dataclass(frozen=True)
class _Candidates:
    """The slides that a feature file may be of, and why it is taken for none of them; "" if it is of the one."""

    path: Path
    slides: Sequence[ManifestRow]
    reason: str = ""


@dataclass(frozen=True)
class _Names:
    """What is known of all files together, by the names of the tree.

    Attributes:
        tree: the feature files.
        root: the folder that the slides' paths hang below.
        manifest: the manifest; `None` if the slides are those of a folder.
        by_name: the slides that have a file's name.
        at_place: of these, the slides at the file's place; without names for which there are none.
        same_stem: how many files have a name, without their ending and accents composed.
    """

    tree: FeatureTree
    root: Path
    manifest: Path | None
    by_name: Mapping[str, Sequence[ManifestRow]]
    at_place: Mapping[str, Sequence[ManifestRow]]
    same_stem: Mapping[str, int]

    @property
    def keeps_subfolders(self) -> bool:
        """Whether a file has been found at its slide's place in a subfolder."""
        return any(self.tree.files[name].parent != self.tree.root for name in self.at_place)

    def candidates(self, name: str) -> _Candidates:
        """The slides that a file may be of: one, or a reason."""
        path, slides = self.tree.files[name], self.by_name[name]
        stem = composed(path.stem)
        if not slides:
            return _Candidates(path, slides, f"{path}: no slide {path.stem} in {self.manifest or self.root}")
        if self.manifest and _is_disputed(stem, slides):
            why = (
                f"{path}: is it of {_paths(slides, self.root)}? In {self.manifest}, {path.stem} is one's slide_id "
                "and the other's file. Give slide_ids that are no other file's name"
            )
            return _Candidates(path, slides, why)
        if name not in self.at_place and (self.keeps_subfolders or self.same_stem[stem] > 1):
            return _Candidates(path, slides, self._not_at_its_place(path))
        slides = self._by_place_and_id(name)
        if len(slides) > 1:
            why = (
                f"{path}: is it of {_paths(slides, self.root)}? Name the slides' files apart, or give a --manifest "
                "whose slide_id is the name of the feature file"
            )
            return _Candidates(path, slides, why)
        return _Candidates(path, slides)

    def _by_place_and_id(self, name: str) -> Sequence[ManifestRow]:
        """The slides of a file's name: those at its place, if there are some. Of a manifest's slides whose files have
        one name, the one with that id.
        """
        stem, slides = composed(self.tree.files[name].stem), self.at_place.get(name, self.by_name[name])
        if self.manifest and all(_stem(row) == stem for row in slides):
            return [row for row in slides if composed(row.slide_id) == stem] or slides
        return slides

    def _not_at_its_place(self, path: Path) -> str:
        """Why a file is of no slide of its name, as no slide lies at its place."""
        others = "other slides do" if self.keeps_subfolders else "other files have this name"
        return (
            f"{path}: no slide of this name lies below {self.root} as this file does below {self.tree.root}, and "
            f"{others}. Are these the folder that the tool wrote, and the folder of slides that it "
            "read?"
        )


def _match_files(
    rows: Sequence[ManifestRow], root: Path, tree: FeatureTree, manifest: Path | None
) -> dict[str, _Candidates]:
    """The slide of each file, by the names of the tree, or why it is of none."""
    same_stem = Counter(composed(path.stem) for path in tree.files.values())
    slides_by_name = _slides_by_name(rows, same_stem.keys())
    by_name = {name: slides_by_name.get(composed(path.stem), []) for name, path in tree.files.items()}
    names = _Names(tree, root, manifest, by_name, _slides_at_places(by_name, tree, root), same_stem)
    candidates = {name: names.candidates(name) for name in tree.files}
    num_files = Counter(c.slides[0].slide_id for c in candidates.values() if not c.reason)
    for name, c in candidates.items():
        if not c.reason and num_files[c.slides[0].slide_id] > 1:
            why = f"{c.path}: another file could be of {_paths(c.slides, root)}, too. Which one is?"
            candidates[name] = _Candidates(c.path, c.slides, why)
    return candidates


def _failed(
    rows: Sequence[ManifestRow], root: Path, paired: Set[str], candidates: Mapping[str, _Candidates]
) -> list[ImportedSlide]:
    """The slides that have no file, each with the reason of one that may be its own; then the files whose reasons no
    slide has.
    """
    files_of_slide: dict[str, list[str]] = {}
    for name, c in candidates.items():
        for row in c.slides if c.reason else ():
            files_of_slide.setdefault(row.slide_id, []).append(name)
    failed, told = [], set()
    for row in rows:
        if row.slide_id in paired:
            continue
        reason = f"{root / row.path}: no file of features for this slide"
        if files := files_of_slide.get(row.slide_id):
            first = row.slide_id if row.slide_id in files else files[0]
            reason = candidates[first].reason
            told.add(first)
        failed.append(ImportedSlide(AuditRow(row.slide_id, "failed", reason, row.path, row.case_id)))
    untold = [(name, c.reason) for name, c in candidates.items() if c.reason and name not in told]
    return failed + [ImportedSlide(AuditRow(name, "failed", reason)) for name, reason in untold]


def _is_disputed(name: str, rows: Sequence[ManifestRow]) -> bool:
    """Whether a name is the id of one slide and of another only the file's. Of slides whose files have one name, the id
    tells which is meant.
    """
    return len(rows) > 1 and any(composed(row.slide_id) == name != _stem(row) for row in rows)


def _stem(row: ManifestRow) -> str:
    """The name of a slide's file without its ending, accents composed."""
    return composed(Path(row.path).stem)


def _paths(rows: Sequence[ManifestRow], root: Path) -> str:
    return " or ".join(str(root / row.path) for row in rows)


def _slides_by_name(rows: Sequence[ManifestRow], stems: Set[str]) -> dict[str, list[ManifestRow]]:
    """Slides by the names that a file of theirs may have; `stems` are the names that there are. All are composed."""
    endings = [ending for tool in all_tools() for ending in tool.dropped_endings]
    slides: dict[str, list[ManifestRow]] = {}
    for row in rows:
        stem = _stem(row)
        names = {composed(row.slide_id), stem}
        if not names & stems:
            names |= {stem[: -len(ending)] for ending in endings if stem.lower().endswith(ending)}
        for name in names:
            slides.setdefault(name, []).append(row)
    return slides


def _slides_at_places(
    by_name: Mapping[str, Sequence[ManifestRow]], tree: FeatureTree, root: Path
) -> dict[str, list[ManifestRow]]:
    """Of the slides that have a file's name, those at its place; only where there are some.

    If every file that has a slide has one at the same path below `root` as its own below the tree's, that is its place.
    Otherwise the tool read another folder of slides: then a slide is at its place if its path ends as the file's.
    """
    places = {name: tree.parts(path) for name, path in tree.files.items()}
    if all(len(place) == 1 for place in places.values()):
        return {}  # of a tool that keeps no subfolders, or of slides without
    top = _parts(root)
    paths = {row.slide_id: _parts((root / row.path).with_suffix("")) for rows in by_name.values() for row in rows}
    same = _slides_where(by_name, lambda name, row: paths[row.slide_id] == top + places[name])
    if not all(name in same for name, rows in by_name.items() if rows):
        same = _slides_where(by_name, lambda name, row: is_end(places[name], paths[row.slide_id]))
    return same


def _slides_where(
    by_name: Mapping[str, Sequence[ManifestRow]], is_so: Callable[[str, ManifestRow], bool]
) -> dict[str, list[ManifestRow]]:
    """By name, the slides for which `is_so`; without names for which there are none."""
    chosen = {name: [row for row in rows if is_so(name, row)] for name, rows in by_name.items()}
    return {name: rows for name, rows in chosen.items() if rows}


def _parts(path: Path) -> Parts:
    """An absolute path in parts, accents composed."""
    return Path(composed(os.path.abspath(path))).parts


def fail_copies(slides: Sequence[ImportedSlide], root: Path) -> list[ImportedSlide]:
    """The slides, with those failed that are copies of another: all of them where they are of different cases, for it
    cannot be known whose they are, else all but one. `root` is the folder below which paths hang.
    """
    well = [index for index, slide in enumerate(slides) if slide.slide is not None]
    kept = list(slides)
    for group in copies_of_slides([file_named(root / slides[index].audit.path) for index in well]):
        parts = [(well[i], part) for i in group if (part := slides[well[i]].slide) is not None]
        cases = {part.case_id for _, part in parts if part.has_case}
        _fail_all_but_one(kept, parts, cases, root, "copies of one slide")
    return kept


def fail_near_copies(slides: Sequence[ImportedSlide], root: Path) -> list[ImportedSlide]:
    """The slides, with warnings or failures of those that have one OpenSlide quickhash, though their files differ.

    Slides of one case are warned of, as in `g2l plan`. Otherwise the slide could be on both sides of the split: all
    fail if their cases are known to differ, else all but one.
    """
    kept = list(slides)
    for group in near_copies([_quickhash(slide) for slide in slides]):
        parts = [(i, part) for i in group if (part := slides[i].slide) is not None]
        cases = {part.case_id for _, part in parts if part.has_case}
        if len({part.case_id for _, part in parts}) > 1:
            _fail_all_but_one(kept, parts, cases, root, "one slide by OpenSlide's quickhash, though their files differ")
            continue
        for index, _ in parts:
            words = near_copy_warning(part.slide_id for i, part in parts if i != index)
            kept[index] = replace(slides[index], audit=slides[index].audit.with_warning(words))
    return kept


def _quickhash(slide: ImportedSlide) -> str | None:
    """OpenSlide's quickhash; `None` of slides that failed, and of DICOM, where it says nothing of the content."""
    return slide.slide.quickhash if slide.slide is not None and slide.audit.vendor != dicom.VENDOR else None


def _fail_all_but_one(
    kept: list[ImportedSlide], parts: Sequence[tuple[int, SlidePlan]], cases: Set[str], root: Path, what: str
) -> None:
    """Fail slides, each with its index in `kept`, that are one slide: all of them if they are of several known cases,
    else all but the first whose case is known; where none is, all but the first.

    A copy that is taken without its case could be on the other side of the split than that case's further slides.
    """
    names = " and ".join(str(root / part.path) for _, part in parts)
    taken = next((part for _, part in parts if part.has_case), parts[0][1])
    for index, part in parts:
        if len(cases) <= 1 and part is taken:
            continue
        why = (
            f"of several cases ({', '.join(sorted(cases))}); take out the wrong ones"
            if len(cases) > 1
            else f"taken once, as {taken.slide_id}"
        )
        kept[index] = kept[index].failed(f"{root / part.path}: {names} are {what}, {why}")
