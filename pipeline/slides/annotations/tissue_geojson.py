"""Write the tissue of a slide as GeoJSON for QuPath, and take a corrected file back as its tissue.

Outlines run along the edges of the mask's pixels, in pixels of level 0, counted from where QuPath counts them: the
corner of the scanned area. So a file that is taken back unchanged gives the same mask, to the pixel, and the same
patches. A mask pixel of a corrected file is tissue if its centre is. What rules for artefacts dropped has a class for
each rule, so that `--max-artefact` counts it as it did.
Format: GeoJSON (RFC 7946) as QuPath 0.4 and later export and import it: a FeatureCollection of annotations, each with
the name and colour of its classification.
"""

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError, SlideError
from pipeline.base.outside import UnsafeError, file_trouble, read_bytes
from pipeline.config.class_rules import capitals_apart
from pipeline.config.groups import AnnotationOrigin
from pipeline.config.tissue_rules import ARTEFACT_RULES, RuleName
from pipeline.disk.file_names import file_named
from pipeline.disk.files import write_text
from pipeline.slides.annotations.outlines import Polygon, mask_of, polygons_of
from pipeline.slides.annotations.read import read_annotations
from pipeline.slides.annotations.regions import Annotations
from pipeline.slides.artefacts.rules import DROPPING
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, reason_of, segment
from pipeline.slides.whole_slide import read_whole

TISSUE_CLASS = "Tissue"
"""The class of tissue, also when a file is taken back."""
UNREADABLE_CLASS = "Unreadable"
"""The class of tissue that could not be read; it means nothing when a file is taken back."""
ARTEFACT_CLASSES: dict[str, RuleName] = {f"Artefact {rule}": rule for rule in ARTEFACT_RULES}
"""The class of what each rule for artefacts dropped, also when a file is taken back."""
CLASS_COLOURS: dict[str, tuple[int, int, int]] = {
    TISSUE_CLASS: (0, 150, 60),
    UNREADABLE_CLASS: (200, 0, 0),
    **{f"Artefact {rule.name}": rule.colour for rule in DROPPING if rule.name in ARTEFACT_RULES and rule.colour},
}
"""RGB of the classes in QuPath: those of rules as in overlays, the others our choice."""
TISSUE_ENDING = ".geojson"
"""What follows a slide's id in the name of its file."""
LENIENT_RULES: tuple[RuleName, ...] = ("faint", "grey")
"""Rules of the finder by which it takes most for tissue."""
LEAST_LIKE = 0.5
"""Share of a file's tissue that should look like tissue. Our choice: outlines that are drawn roughly have more, and
those in other units or of another level less.
"""
NAMESPACE = uuid.UUID("5a4e1a3f-2c0b-5c0e-9d25-0b8f8a1a6f2e")
"""Of the ids of objects, which QuPath wants unique; made from slide, class and number, so that files are the same."""


def corrected_path(folder: Path, slide_id: str) -> Path:
    """The file of a slide in a folder of tissue; one that is there, even if only the encoding of accents in its name
    differs, as that of a file which QuPath exported on a Mac.
    """
    return file_named(written_path(folder, slide_id))


def written_path(folder: Path, slide_id: str) -> Path:
    """The file of a slide's tissue as `write_tissue` names it."""
    return folder / f"{slide_id}{TISSUE_ENDING}"


def written_corner(slide: Slide, origin: AnnotationOrigin) -> tuple[int, int]:
    """Where written coordinates count from: (x, y), level-0 pixels."""
    return (0, 0) if origin == "slide" else slide.info.bounds_l0_px[:2]


def write_tissue(tissue: TissueMask, slide_id: str, folder: Path, corner_l0_px: tuple[int, int] = (0, 0)) -> None:
    """Write the tissue of a slide, what of it could not be read, and what rules for artefacts dropped, as a file in
    `folder`. Coordinates count from `corner_l0_px` (x, y).

    Raises:
        OSError: it cannot be written.
    """
    regions = {TISSUE_CLASS: tissue.mask, UNREADABLE_CLASS: tissue.unreadable}
    regions |= {name: tissue.dropped_by(rule) for name, rule in ARTEFACT_CLASSES.items()}
    collection = {
        "type": "FeatureCollection",
        "features": [
            feature
            for name, mask in regions.items()
            for feature in _features(name, mask, tissue.pixel_l0_px, slide_id, corner_l0_px)
        ],
    }
    write_text(written_path(folder, slide_id), json.dumps(collection) + "\n")


def _features(
    name: str, mask: NDArray[np.bool_], pixel_l0_px: float, slide_id: str, corner_l0_px: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """A feature for each object of a mask (H, W)."""
    for number, polygon in enumerate(polygons_of(mask)):
        yield {
            "type": "Feature",
            "id": _object_id(slide_id, name, number),
            "geometry": {"type": "Polygon", "coordinates": _coordinates(polygon, pixel_l0_px, corner_l0_px)},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(CLASS_COLOURS[name])},
            },
        }


def _object_id(slide_id: str, name: str, number: int) -> str:
    """The id of an object, by its class and its place among those of the class."""
    return str(uuid.uuid5(NAMESPACE, f"{slide_id}\0{name}\0{number}"))


def _coordinates(polygon: Polygon, pixel_l0_px: float, corner_l0_px: tuple[int, int]) -> list[list[list[float]]]:
    """The rings of a polygon in pixels of level 0 from a corner; whole numbers are written as such."""
    rings = (ring * pixel_l0_px - np.array(corner_l0_px) for ring in polygon)
    return [
        [[int(value) if value.is_integer() else value for value in point] for point in ring.tolist()] for ring in rings
    ]


def is_as_written(path: Path, slide_id: str) -> bool:
    """Whether a slide's file of tissue is as `write_tissue` left it, by its spelling and the ids of its objects: QuPath
    and other programs write neither so.
    """
    numbers = Counter[str]()
    try:
        data = read_bytes(path)
        collection = json.loads(data)
        for feature in collection["features"]:
            name = feature["properties"]["classification"]["name"]
            if feature["id"] != _object_id(slide_id, name, numbers[name]):
                return False
            numbers[name] += 1
    except (OSError, UnsafeError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return bool(data == f"{json.dumps(collection)}\n".encode())


def tissue_from_file(
    slide: Slide, slide_id: str, folder: Path, origin: AnnotationOrigin = "auto"
) -> tuple[TissueMask, tuple[str, ...]]:
    """The tissue of a slide as the class `TISSUE_CLASS` of its file in `folder` says, in place of `find_tissue`; and
    what was repaired or left out of the file. Areas that cannot be read are tissue only where the file says so; those
    that were never scanned are none. What is of one of the `ARTEFACT_CLASSES` was dropped by that rule, also where it
    is of the class of tissue.
    `origin` is where coordinates count from.

    Raises:
        SlideError: there is no file, or it cannot be read, is of another slide, or has no such class.
    """
    path = corrected_path(folder, slide_id)
    if why := file_trouble(path):
        raise SlideError(f"{path}: {why}, and --tissue-from takes this slide's tissue from it", about="tissue")
    whole = read_whole(slide)
    thumbnail, unreadable, pixel_l0_px = whole.image, whole.unreadable, whole.pixel_l0_px
    slide.direct.forget_tiles()
    rows, columns = unreadable.shape
    size_l0_px = (math.ceil(columns * pixel_l0_px), math.ceil(rows * pixel_l0_px))  # the last pixels may pass the slide
    names, covers_all = {slide_id, slide.path.stem}, slide.info.bounds_l0_px == (0, 0, *slide.info.size_l0_px)
    try:
        found = read_annotations(
            path,
            size_l0_px=size_l0_px,
            mpp=slide.info.mpp,
            slide_names=names,
            scanned_l0_px=None if covers_all else slide.info.bounds_l0_px,
            origin=origin,
        )
        if TISSUE_CLASS not in found.classes:
            has = ", ".join(found.classes) or "no class at all"
            hint = ", and capitals count" if capitals_apart(TISSUE_CLASS, found.classes) else ""
            raise AnnotationError(f"{path}: no class {TISSUE_CLASS}, which --tissue-from asks for; it has {has}{hint}")
        outlines = {name: found.rings(name) for name in (TISSUE_CLASS, *ARTEFACT_CLASSES) if name in found.classes}
    except AnnotationError as error:
        raise SlideError(str(error), about="tissue") from None
    masks = {name: mask_of((ring / pixel_l0_px for ring in rings), (rows, columns)) for name, rings in outlines.items()}
    mask, reasons, rules = masks.pop(TISSUE_CLASS), np.zeros((rows, columns), np.uint8), []
    for name, drawn in masks.items():
        rules.append(ARTEFACT_CLASSES[name])
        reasons[drawn] = reason_of(rules[-1])
    mask &= (reasons == 0) & ~whole.unscanned
    notes = tuple(f"{path.name} of --tissue-from: {note}" for note in (*found.notes, *_unused(found)))
    tissue = TissueMask(mask, pixel_l0_px, unreadable & mask, thumbnail, reasons, rules=tuple(rules))
    return replace(tissue, bare=float(whole.unscanned.mean()), faded=whole.num_faded / mask.size), notes


def doubts_of(tissue: TissueMask, pixel_um: float) -> tuple[str, ...]:
    """A note on tissue out of a file that mostly looks like glass to the finder; `pixel_um` is a mask pixel's side."""
    seen = tissue.mask & ~tissue.unreadable
    looks_so = segment(tissue.thumbnail, pixel_um, tissue.unreadable, LENIENT_RULES)
    share = int((seen & looks_so).sum()) / max(int(seen.sum()), 1)
    if share >= LEAST_LIKE or not seen.any():
        return ()
    return (
        f"only {share:.0%} of the area of class {TISSUE_CLASS} of --tissue-from looks like tissue: does its file count "
        "pixels of level 0, and is it of this slide?",
    )


def _unused(found: Annotations) -> list[str]:
    """A note on classes of a file that mean nothing, if it has any."""
    known = {TISSUE_CLASS, UNREADABLE_CLASS, *ARTEFACT_CLASSES}
    areas = {name: area / 1e6 for name, area in found.areas_um2.items() if name not in known}
    words = ", ".join(f"{name} ({area:.3g} mm2)" for name, area in areas.items())
    return [f"of no class that counts here: {words}"] if areas else []
