"""Read the regions of an XML file of ASAP, of Aperio ImageScope, or of HALO (.annotations).

The file's own elements tell which it is. Document types and entities are refused: none of these programs writes them,
and a few lines of them can expand to gigabytes. See docs/annotations.md. Pure.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import AnnotationError
from pipeline.base.outside import UnsafeError
from pipeline.config.class_rules import clean_class
from pipeline.slides.annotations.drawn import UNCLASSIFIED, DrawnRegion, Notes, box_outline, ellipse_outline

MOST_DEPTH = 50
"""Elements within elements. Our choice; these files have seven."""
MPP_TOLERANCE = 0.02
"""Share by which ImageScope's um/px may differ from the slide's; the rule for a manifest's mpp."""
APERIO_TYPES = {"0": "polygon", "1": "rectangle", "2": "ellipse"}
"""ImageScope's kinds of regions that are read. Others are arrows, rulers and pins. The two points of an ellipse are
corners of its box: the Area and Length that ImageScope writes beside them are those of that ellipse (decision 0104).
"""
ASAP_TYPES = ("polygon", "spline", "rectangle")
"""ASAP's kinds of annotations that have an area; others are dots, sets of points and measurements."""


def xml_regions(text: bytes, mpp: float, notes: Notes, where: str, slide_name: str) -> list[DrawnRegion]:
    """The regions of an XML file.

    Args:
        mpp: um/px of the slide's level 0.
        notes: is given what is left out.
        where: the file's path, for errors.
        slide_name: likewise.

    Raises:
        AnnotationError: it says another resolution than the slide has.
        ValueError, expat.ExpatError: it is not XML of these programs.
    """
    root = parse_tree(text)
    if root.tag == "ASAP_Annotations":
        return list(_asap(root, notes))
    if root.tag != "Annotations":
        raise ValueError(f"XML that begins with <{root.tag}>, which is of none of these programs")
    _require_resolution(root.get("MicronsPerPixel"), mpp, where, slide_name)
    return list(_layers(root, notes))


def parse_tree(text: bytes) -> Element:
    """The root of an XML document without entities.

    Raises:
        UnsafeError: it declares a document type, or is nested too deeply.
        expat.ExpatError: it is no XML.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise UnsafeError("nested too deeply")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise UnsafeError("it declares a document type, which may hold entities that expand without end")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text, True)
    return builder.close()


def _require_resolution(stated: str | None, mpp: float, where: str, slide_name: str) -> None:
    """See that ImageScope's resolution, if it is said, is the slide's."""
    if not stated or not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", stated) or float(stated) == 0:
        return
    if abs(float(stated) / mpp - 1) > MPP_TOLERANCE:
        raise AnnotationError(
            f"{where}: drawn on an image of {float(stated):g} um/px, and slide {slide_name} has {mpp:g}. It is of "
            "another slide, or the slide's mpp is wrong"
        )


def _asap(root: Element, notes: Notes) -> Iterator[DrawnRegion]:
    """The annotations of ASAP; their class is the group that they are part of."""
    for number, item in enumerate(root.iter("Annotation"), start=1):
        kind = item.get("Type", "Polygon")
        if kind.lower() not in ASAP_TYPES:
            notes.add(f"a {kind} has no area and was left out", number)
            continue
        found = sorted(item.iter("Coordinate"), key=lambda point: float(point.get("Order", "0")))
        points = _points(found, number)
        if kind.lower() == "spline":
            notes.add("a spline was taken as the polygon of its points", number)
        if kind.lower() == "rectangle" and len(points) == 2:
            points = box_outline(points)
        group = item.get("PartOfGroup", "")
        name = UNCLASSIFIED if clean_class(group) in ("", "None") else group
        yield DrawnRegion(number, notes.class_named(name), [points])


def _layers(root: Element, notes: Notes) -> Iterator[DrawnRegion]:
    """The regions of the layers of ImageScope and HALO. Their class is the layer's name; that of a layer without one is
    the region's text, or the layer's number.
    """
    number = 0
    for place, layer in enumerate(root.iter("Annotation"), start=1):
        layer_name = _layer_name(layer)
        for region in layer.iter("Region"):
            number += 1
            kind = region.get("Type", "Polygon")
            points = _points([*region.iter("Vertex"), *region.iter("V")], number)
            if _is_halo_line(region, points):
                notes.add("a line with ends has no area and was left out", number)
                continue
            outline = _outline(APERIO_TYPES.get(kind, kind.lower()), points)
            if outline is None:
                notes.add(f"of type {kind}, which has no area or is not known: left out", number)
                continue
            is_hole = region.get("NegativeROA", "0").strip().lower() in ("1", "true")
            named = (layer_name, region.get("Text", ""), f"Layer {layer.get('Id', '').strip() or place}")
            name = next(filter(clean_class, named))
            yield DrawnRegion(number, notes.class_named(name), [outline], is_hole)


def _is_halo_line(region: Element, points: NDArray[np.float64]) -> bool:
    """Whether a polygon of HALO is a line: one that has ends, and does not return to its first point."""
    has_ends = region.get("HasEndcaps", "0").strip() == "1"
    return has_ends and len(points) > 2 and bool((points[0] != points[-1]).any())


def _layer_name(layer: Element) -> str:
    """The name of a layer as it is spelled, or its description in ImageScope; "" if it has none."""
    if clean_class(own := layer.get("Name", "")):
        return own
    descriptions = [item for item in layer.iterfind("Attributes/Attribute") if item.get("Name") == "Description"]
    return descriptions[0].get("Value", "") if descriptions else ""


def _outline(kind: str, points: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The outline of a region; `None` if its kind has none."""
    if kind == "polygon":
        return points
    if kind == "rectangle":
        return box_outline(points) if len(points) == 2 else points
    if kind == "ellipse":
        is_box = 2 <= len(points) <= 5 and len(np.unique(points[:, 0])) == len(np.unique(points[:, 1])) == 2
        return ellipse_outline(points) if is_box else points
    return None


def _points(elements: list[Element], number: int) -> NDArray[np.float64]:
    """The points of a region, float64 (K, 2)."""
    try:
        words = [(point.attrib["X"], point.attrib["Y"]) for point in elements]
    except KeyError as error:
        raise ValueError(f"a point of region {number} has no {error.args[0]}") from None
    try:
        points = [(float(x), float(y)) for x, y in words]
    except ValueError:
        raise ValueError(f"a point of region {number} has a coordinate that is no number") from None
    return np.array(points, np.float64).reshape(-1, 2)
