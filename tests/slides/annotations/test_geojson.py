"""GeoJSON as QuPath, TRIDENT and programs without nested properties write it."""

import json
from typing import Any

import pytest

from pipeline.slides.annotations.drawn import DrawnRegion, Notes, shapes_by_class
from pipeline.slides.annotations.geojson import class_of, geojson_regions

RING = [[10, 10], [90, 10], [90, 90], [10, 90], [10, 10]]
HOLE = [[20, 20], [20, 40], [40, 40], [40, 20], [20, 20]]


def feature(geometry: dict[str, Any] | None, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": "5a4e1a3f", "geometry": geometry, "properties": properties}


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def parsed(value: Any) -> tuple[list[DrawnRegion], list[str], tuple[str, ...]]:
    notes = Notes()
    regions, images, _ = geojson_regions(json.dumps(value).encode(), notes)
    return regions, images, notes.lines()


def areas(value: Any, width: int = 100) -> dict[str, float]:
    shapes = shapes_by_class(parsed(value)[0], (width, 100), Notes(), "a", "s")
    return {name: shape.area for name, shape in shapes.items()}


QUPATH = feature(
    polygon(RING, HOLE), objectType="annotation", classification={"name": "Tumor", "color": [200, 0, 0]}, isLocked=False
)
COLLECTION = {"type": "FeatureCollection", "features": [QUPATH]}
TRIDENT = {
    "type": "FeatureCollection",
    "name": "slide-1",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
    "features": [{"type": "Feature", "properties": {"tissue_id": 0}, "geometry": polygon(RING, HOLE)}],
}


@pytest.mark.parametrize(
    "value",
    [COLLECTION, [QUPATH], QUPATH, [COLLECTION]],
    ids=["collection", "list", "one feature", "list of collections"],
)
def test_every_form_that_qupath_exports(value: Any) -> None:
    assert areas(value) == {"Tumor": 6000.0}
    assert parsed(value)[1:] == ([], ())


def test_contours_of_trident_are_tissue() -> None:
    assert areas(TRIDENT) == {"Tissue": 6000.0}


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor"}}, "Tumor"),
        ({"classification": {"names": ["Tumor", "invasive"]}}, "Tumor: invasive"),
        ({"classification": {"name": "Stroma", "colorRGB": -6895466}}, "Stroma"),
        ({"classification": '{ "name": "Fat", "color": [ 1, 2, 3 ] }'}, "Fat"),
        ({"classification": "{odd"}, "{odd"),
        ({"classification": " Necrosis "}, "Necrosis"),
        ({"classification": {"names": [" Tumor", "in\u00a0situ "]}}, "Tumor: in situ"),
        ({"classification": {"name": "\u00a0", "names": ["Tumor"]}}, "Tumor"),
        ({"classification": "\u200b", "name": "Region  1"}, "Region 1"),
        ({"classification": None, "name": "Region 1"}, "Region 1"),
        ({"classification": {"name": None}}, "Unclassified"),
        ({"classification": None}, "Unclassified"),
        ({}, "Unclassified"),
        ({"tissue_id": 0}, "Tissue"),
    ],
)
def test_where_a_class_is_named(properties: dict[str, Any], name: str) -> None:
    notes = Notes()
    assert notes.class_named(*class_of(properties)) == name
    assert list(notes.spellings) == [name]


def test_what_is_no_annotation_or_has_no_area_is_noted() -> None:
    cell = feature(polygon(RING), objectType="cell")
    old = feature(polygon(RING)) | {"id": "PathDetectionObject"}
    older = feature(polygon(RING)) | {"id": "PathAnnotationObject"}
    point = feature({"type": "Point", "coordinates": [1, 2]})
    regions, _, notes = parsed([cell, cell, old, point, feature(None), QUPATH, older])
    assert [region.number for region in regions] == [6, 7]
    assert notes == (
        "2 regions (number 1, 2): of kind cell, not an annotation: left out",
        "1 region (number 3): of kind PathDetectionObject, not an annotation: left out",
        "1 region (number 4): a Point has no area and was left out",
        "1 region (number 5): it has no geometry and was left out",
    )


def test_kinds_that_qupath_does_not_know_are_annotations() -> None:
    """So are a `type` that other programs use for something else."""
    features = [
        feature(polygon(RING), objectType="region"),
        feature(polygon(RING), type="Tumor"),
        feature(polygon(RING), type="tile"),
        feature(polygon(RING), object_type="tma_core"),
    ]
    regions, _, notes = parsed(features)
    assert [region.number for region in regions] == [1, 2]
    assert [note.split(",")[0] for note in notes] == [
        "1 region (number 3): of kind tile",
        "1 region (number 4): of kind tma_core",
    ]


@pytest.mark.parametrize(
    ("value", "is_of_qupath"),
    [
        (COLLECTION, True),
        ([feature(polygon(RING), object_type="annotation")], True),
        ([feature(polygon(RING)) | {"id": "PathAnnotationObject"}], True),
        (TRIDENT, False),
        ([feature(polygon(RING), classification={"name": "Tumor"})], False),
        (polygon(RING), False),
    ],
)
def test_the_form_of_qupath_is_known(value: Any, is_of_qupath: bool) -> None:
    assert geojson_regions(json.dumps(value).encode(), Notes())[2] is is_of_qupath


def test_several_polygons_of_a_feature() -> None:
    moved = [[x + 200, y, 0] for x, y in RING]  # with a height, as RFC 7946 allows
    several = {"type": "MultiPolygon", "coordinates": [[RING, HOLE], [moved]]}
    gathered = {"type": "GeometryCollection", "geometries": [polygon(RING, HOLE), polygon(moved)]}
    for geometry in (several, gathered):
        assert areas(geometry, 300) == {"Unclassified": 12400.0}


def test_an_open_ring_is_noted() -> None:
    assert parsed(polygon(RING[:-1]))[2] == ("1 region (number 1): its outline is open and was closed",)
    assert areas(polygon(RING[:-1])) == {"Unclassified": 6400.0}


def test_names_of_images_are_found() -> None:
    value = {
        "type": "FeatureCollection",
        "image": "a.svs",
        "features": [feature(polygon(RING), slide_name="b", slide=3)],
    }
    assert parsed(value)[1] == ["a.svs", "b"]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "Circle", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[1], [2], [3]]]},
        {"type": "Polygon", "coordinates": [[["a", "b"]]]},
        {"type": "Polygon"},
        {"features": []},
        {"type": "FeatureCollection"},
        [3],
        3,
    ],
)
def test_what_is_none_fails(value: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        parsed(value)


def test_collections_within_collections_end() -> None:
    value: dict[str, Any] = polygon(RING)
    for _ in range(20):
        value = {"type": "GeometryCollection", "geometries": [value]}
    with pytest.raises(ValueError, match="not of GeoJSON"):
        parsed(value)
