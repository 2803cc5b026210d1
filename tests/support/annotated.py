"""Annotations of small slides: files that QuPath might have written, and parts of XML of ASAP, ImageScope and HALO."""

import json
from pathlib import Path

Box = tuple[float, float, float, float]
Corners = list[tuple[int, int]]


def feature(name: str, box: Box) -> dict[str, object]:
    """A rectangle (x, y, width, height) of level 0, with a class."""
    x, y, width, height = box
    ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}},
    }


def write_geojson(path: Path, **boxes: Box | list[Box]) -> Path:
    """A file with the boxes of each class."""
    pairs = [(name, box) for name, some in boxes.items() for box in (some if isinstance(some, list) else [some])]
    features = [feature(name, box) for name, box in pairs]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def asap(kind: str, group: str, places: Corners) -> str:
    """An annotation of ASAP."""
    points = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in reversed(list(enumerate(places)))
    )
    inside = f"<Coordinates>{points}</Coordinates>"
    return f'<Annotation Name="A" Type="{kind}" PartOfGroup="{group}" Color="#F00">{inside}</Annotation>'


def layer(regions: str, name: str = "", more: str = "", number: str = "1") -> str:
    """A layer of ImageScope or HALO, of some regions."""
    return f'<Annotation Id="{number}" Name="{name}" LineColor="65280">{more}<Regions>{regions}</Regions></Annotation>'


def region(places: Corners, tag: str, **attributes: str) -> str:
    """A region of ImageScope or HALO, whose points have this tag."""
    words = "".join(f' {name}="{value}"' for name, value in attributes.items())
    points = "".join(f'<{tag} X="{x}" Y="{y}" Z="0" />' for x, y in places)
    return f"<Region{words}><Vertices>{points}</Vertices></Region>"
