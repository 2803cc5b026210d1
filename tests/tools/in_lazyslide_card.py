"""Run by `test_real_tools` beside LazySlide: the lines of the student's card, from the slide's tissue to features.

Arguments: the student's folder, the student's card, a slide. LazySlide lays its own tiles; `difference` is from the
student's embeddings of the same places, read by OpenSlide.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import openslide
import torch

student, card, slide = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sys.path.insert(0, str(student / "adapters"))
(lines,) = re.findall(r"^```python\n(import lazyslide as zs\n.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL)
names: dict[str, object] = {}
exec(lines.replace('"slide.svs"', repr(slide)).replace('"NAME"', repr(student.name)), names)
wsi = names["wsi"]

import eva_student  # noqa: E402  (of all adapters the plainest)

spec = wsi.tile_spec("tiles")
corners = wsi.shapes["tiles"].bounds[["minx", "miny"]].to_numpy().astype(int)
model = eva_student.load_student()
with openslide.OpenSlide(slide) as file, torch.inference_mode():
    tiles = [file.read_region(tuple(corner), 0, (spec.base_width,) * 2).convert("RGB") for corner in corners.tolist()]
    assert spec.base_width == spec.width, "the tiles are resized"
    expected = model(torch.stack([model.transform(tile) for tile in tiles])).numpy()
found = wsi.fetch.features_anndata(student.name).X
print(json.dumps({"num": len(found), "side": spec.width, "difference": float(np.abs(found - expected).max())}))
