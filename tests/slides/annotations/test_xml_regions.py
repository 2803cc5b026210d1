"""XML of ASAP, ImageScope and HALO."""

from xml.parsers.expat import ExpatError

import pytest
from support.annotated import Corners, asap, layer, region

from pipeline.base.errors import AnnotationError
from pipeline.slides.annotations.drawn import Notes, shapes_by_class
from pipeline.slides.annotations.xml_regions import parse_tree, xml_regions

SQUARE: Corners = [(10, 10), (90, 10), (90, 90), (10, 90)]


def areas(text: str, mpp: float = 1.0) -> tuple[dict[str, float], tuple[str, ...]]:
    notes = Notes()
    shapes = shapes_by_class(xml_regions(text.encode(), mpp, notes, "a.xml", "s"), (100, 100), notes, "a.xml", "s")
    return {name: shape.area for name, shape in shapes.items()}, notes.lines()


def test_asap() -> None:
    inside = "".join(
        [
            asap("Polygon", "Tumor", SQUARE),
            asap("Rectangle", "None", [(0, 0), (10, 0), (10, 10), (0, 10)]),
            asap("Dot", "Tumor", [(5, 5)]),
            asap("Spline", "Stroma", [(90, 0), (100, 0), (100, 10)]),
        ]
    )
    groups = '<AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#F00"><Attributes /></Group>'
    found, notes = areas(
        f"<?xml version='1.0'?><ASAP_Annotations><Annotations>{inside}</Annotations>{groups}</AnnotationGroups>"
        "</ASAP_Annotations>"
    )
    assert found == {"Stroma": 50.0, "Tumor": 6400.0, "Unclassified": 100.0}
    assert notes == (
        "1 region (number 3): a Dot has no area and was left out",
        "1 region (number 4): a spline was taken as the polygon of its points",
    )


def test_imagescope() -> None:
    hole = region([(20, 20), (40, 20), (40, 40), (20, 40)], "Vertex", Type="0", NegativeROA="1")
    whole = region(SQUARE, "Vertex", Type="0", NegativeROA="0")
    odd = region([(1, 1), (2, 2)], "Vertex", Type="3") + region([(1, 1), (20, 20)], "Vertex", Type="4")
    text = region([(0, 0), (10, 0), (10, 10), (0, 10)], "Vertex", Type="1", Text="necrosis")
    described = '<Attributes><Attribute Name="Description" Id="0" Value="stroma" /></Attributes>'
    triangle = region([(0, 90), (5, 90), (5, 95)], "Vertex")
    layers = [
        layer(whole + hole + odd, "Tumor"),
        layer(text),
        layer(triangle, number="7"),
        layer(triangle, more=described),
    ]
    found, notes = areas(f'<Annotations MicronsPerPixel="0.2500">{"".join(layers)}</Annotations>', 0.252)
    assert found == {"Layer 7": 12.5, "Tumor": 6000.0, "necrosis": 100.0, "stroma": 12.5}
    assert [note.split(":")[0] for note in notes] == ["1 region (number 3)", "1 region (number 4)"]


def test_an_ellipse_of_imagescope_fills_the_box_of_its_points() -> None:
    """ImageScope itself wrote an area of 1121.5 beside such a box of 42 x 34 pixels; of an axis it would be 2293."""
    ellipse = region([(32, 5), (74, 39)], "Vertex", Type="2", Area="1121.5", Length="119.7")
    found, notes = areas(f"<Annotations>{layer(ellipse, 'Mitosis')}</Annotations>")
    assert found["Mitosis"] == pytest.approx(1121.5, rel=2e-4)
    assert notes == ()


def test_an_annotation_at_another_resolution_is_of_another_slide() -> None:
    with pytest.raises(AnnotationError, match=r"a\.xml: drawn on an image of 0\.5 um/px, and slide s has 0\.25"):
        areas(f'<Annotations MicronsPerPixel="0.5">{layer(region(SQUARE, "Vertex"))}</Annotations>', 0.25)
    for stated in ("", "0.000000", "unknown"):
        assert areas(f'<Annotations MicronsPerPixel="{stated}">{layer(region(SQUARE, "Vertex"), "a")}</Annotations>')[0]


def test_halo() -> None:
    parts = [
        region(SQUARE, "V", Type="Polygon", NegativeROA="0"),
        region([(20, 40), (40, 20)], "V", Type="Rectangle", NegativeROA="1"),
        region([(50, 50), (70, 60)], "V", Type="Ellipse", NegativeROA="1"),
        region([(0, 0), (9, 9)], "V", Type="Ruler"),
    ]
    found, notes = areas(f"<Annotations>{layer(''.join(parts), 'Tumor')}</Annotations>")
    assert found["Tumor"] == pytest.approx(6400 - 400 - 3.14159 * 10 * 5, rel=1e-4)
    assert notes == ("1 region (number 4): of type Ruler, which has no area or is not known: left out",)


def test_a_line_of_halo_has_no_area() -> None:
    wave: Corners = [(0, 0), (20, 10), (40, 0), (60, 10)]
    parts = [
        region(wave, "V", Type="Polygon", HasEndcaps="1", NegativeROA="0"),
        region([*SQUARE, SQUARE[0]], "V", Type="Polygon", HasEndcaps="1", NegativeROA="0"),
        region([(95, 95), (99, 95), (99, 99)], "V", Type="Polygon", HasEndcaps="0", NegativeROA="0"),
    ]
    found, notes = areas(f"<Annotations>{layer(''.join(parts), 'Tumor')}</Annotations>")
    assert found == {"Tumor": 6408.0}
    assert notes == ("1 region (number 1): a line with ends has no area and was left out",)


def test_entities_document_types_and_deep_nesting_are_refused() -> None:
    laughs = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><Annotations>&b;</Annotations>'
    for text in (laughs.encode(), laughs.encode("utf-16")):
        with pytest.raises(ValueError, match="declares a document type"):
            parse_tree(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_tree(b"<a>" * 10_000)


LETTER = layer(region([(1, 1)], "V").replace('X="1"', 'X="a"'))
LACKS = layer(region([(1, 1)], "V").replace('Y="1"', ""))


@pytest.mark.parametrize(
    "inside", ["<Annotations>", "<a/>", *(f"<Annotations>{x}</Annotations>" for x in (LETTER, LACKS))]
)
def test_what_is_none_fails(inside: str) -> None:
    with pytest.raises((ValueError, ExpatError)):
        areas(inside)
