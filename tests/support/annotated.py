"""Annotations of small slides: files that QuPath might have written."""

import json
from pathlib import Path

Box = tuple[float, float, float, float]


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
