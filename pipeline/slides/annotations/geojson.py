"""Read the regions of a GeoJSON file: of QuPath, TRIDENT, LazySlide, or of any program that writes pixels of level 0.

Taken are polygons of annotations, and of features that say nothing of their kind. See docs/annotations.md.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.class_rules import clean_class
from pipeline.slides.annotations.drawn import UNCLASSIFIED, DrawnRegion, Notes

LEFT_OUT_TYPES = ("detection", "cell", "tile", "tmaCore", "tma_core", "root")
"""QuPath's kinds of objects that no person drew as a region, as 0.3 and later write them. It takes all others, also
kinds that it does not know, for annotations.
"""
ANNOTATION = "annotation"
"""QuPath's kind of what a person drew."""
OLD_ANNOTATION = "PathAnnotationObject"
"""An annotation in `id`, before version 0.3."""
OLD_PREFIX, OLD_SUFFIX = "Path", "Object"
"""Of QuPath's kinds in `id`, before version 0.3: PathDetectionObject."""
IMAGE_KEYS = ("image", "imageName", "image_name", "slide", "slide_id", "slide_name")
"""Members of a file or feature that may name the slide."""
TISSUE = "Tissue"
"""The class of TRIDENT's contours, which have a `tissue_id` and no class."""
GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")
MOST_NESTED = 10
"""Collections within collections that are read. Our choice."""


def geojson_regions(text: bytes, notes: Notes) -> tuple[list[DrawnRegion], list[str], bool]:
    """The regions of a GeoJSON file, the names of images that it holds, and whether it is in the form of QuPath, whose
    features say what kind of object they are.

    Raises:
        ValueError, RecursionError, TypeError: it is not GeoJSON.
    """
    value = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
    images = _images(value)
    regions, is_of_qupath = [], False
    for number, feature in enumerate(_features(value), start=1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        images += _images(properties)
        kind = _kind(feature, properties)
        is_of_qupath |= bool(kind)
        if kind in LEFT_OUT_TYPES or (kind.startswith(OLD_PREFIX) and kind != OLD_ANNOTATION):
            notes.add(f"of kind {kind}, not an annotation: left out", number)
            continue
        geometry = feature.get("geometry")
        if geometry is None:
            notes.add("it has no geometry and was left out", number)
            continue
        name = notes.class_named(*class_of(properties))
        regions += [DrawnRegion(number, name, rings) for rings in _polygons(geometry, number, notes)]
    return regions, list(dict.fromkeys(images)), is_of_qupath


def class_of(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """The class that a feature's properties give, as it is spelled there: of QuPath's classification, the name, or the
    names of a class and its subclasses; else the feature's own name; "Tissue" if it only has a tissue number.
    """
    classification = properties.get("classification")
    if isinstance(classification, str) and classification.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):  # as programs that know no nested properties write it
            classification = json.loads(classification)
    several: tuple[str, ...] = ()
    if isinstance(classification, dict):
        names = classification.get("names")
        several = tuple(map(str, names)) if isinstance(names, list) else ()
        classification = classification.get("name")
    for name in (classification, several, properties.get("name")):
        parts = (name,) if isinstance(name, str) else name
        if isinstance(parts, tuple) and any(map(clean_class, parts)):
            return parts
    return (TISSUE if "tissue_id" in properties else UNCLASSIFIED,)


def _images(holder: Any) -> list[str]:
    """The names of images that a file or the properties of a feature hold."""
    values = [holder.get(key) for key in IMAGE_KEYS] if isinstance(holder, dict) else []
    return [value for value in values if isinstance(value, str) and value.strip()]


def _features(value: Any) -> Iterator[dict[str, Any]]:
    """The features of a collection, of a bare list, or of a bare feature or geometry."""
    if isinstance(value, dict) and value.get("type") == "FeatureCollection":
        value = value.get("features")
    for item in value if isinstance(value, list) else [value]:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in GEOMETRIES:
            yield {"geometry": item}
        elif kind == "FeatureCollection":
            yield from _features(item)
        elif kind == "Feature":
            yield item
        else:
            raise ValueError("it holds something that is no GeoJSON feature")


def _kind(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """QuPath's kind of object: "annotation", "detection", "cell", "tile", "tmaCore", "root"; "" if it is not said. It
    also reads a `type`, which other programs use for classes; that counts only if it is one of these kinds.
    """
    kind = properties.get("objectType", properties.get("object_type"))
    if isinstance(kind, str):
        return kind
    if properties.get("type") in (ANNOTATION, *LEFT_OUT_TYPES):
        return str(properties["type"])
    old = feature.get("id")
    is_kind = isinstance(old, str) and old.startswith(OLD_PREFIX) and old.endswith(OLD_SUFFIX)
    return str(old) if is_kind else ""


def _polygons(geometry: Any, number: int, notes: Notes, depth: int = 0) -> Iterator[list[NDArray[np.float64]]]:
    """The rings of each polygon of a geometry."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRIES or depth > MOST_NESTED:
        raise ValueError(f"feature {number} has a geometry that is not of GeoJSON")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part, number, notes, depth + 1)
    elif kind == "Polygon":
        yield _rings_of(geometry["coordinates"], number, notes)
    elif kind == "MultiPolygon":
        for polygon in geometry["coordinates"]:
            yield _rings_of(polygon, number, notes)
    else:
        notes.add(f"a {kind} has no area and was left out", number)


def _rings_of(coordinates: Any, number: int, notes: Notes) -> list[NDArray[np.float64]]:
    """The rings of a polygon; open ones are noted."""
    try:
        rings = [np.array([point[:2] for point in ring], np.float64) for ring in coordinates]
    except (TypeError, ValueError):
        raise ValueError(f"the coordinates of feature {number} are no lists of points of two numbers") from None
    if any(ring.ndim != 2 or (ring.shape[1] != 2) for ring in rings if len(ring)):
        raise ValueError(f"feature {number} has a point without x or y")
    if any(len(ring) > 2 and (ring[0] != ring[-1]).any() for ring in rings):
        notes.add("its outline is open and was closed", number)
    return rings
