"""Run by `test_real_tools` beside LazySlide: the student by its registry of models, on tiles that `g2l embed` wrote.

Arguments: the student's folder, a slide, the feature file of `g2l embed` for it, um/px. The slide's left half is of
one colour and the right half of another; `score` is how well LazySlide's domains (clusters of features) tell the tiles
of one half from those of the other, by the adjusted Rand index. Tiles on the line between the halves are left out.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import lazyslide
import numpy as np
import timm
from sklearn.metrics import adjusted_rand_score
from wsidata import TileSpec, open_wsi
from wsidata.io import add_tiles

student, slide, features, mpp = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
sys.path.insert(0, str(student / "adapters"))
import lazyslide_model  # noqa: E402, F401  (registers the student)

with h5py.File(features) as file:
    expected, corners = file["features"][:].squeeze(), file["coords"][:]
side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
wsi = open_wsi(slide, store=None, reader="openslide")
spec = TileSpec.from_wsidata(wsi, tile_px=side, mpp=mpp)
add_tiles(wsi, key="tiles", xys=corners, tile_spec=spec, tissue_ids=np.zeros(len(corners), int))
differences = []
for workers in (0, 1):
    found = lazyslide.tl.feature_extraction(
        wsi, student.name, device="cpu", amp=False, num_workers=workers, pbar=False, return_features=True
    )
    differences.append(float(np.abs(found - expected).max()))
table = wsi.fetch.features_anndata(student.name)
assert np.array_equal(table.X, found)  # what the user gets of the slide's store
lazyslide.tl.spatial_domain(wsi, student.name)
domains = wsi["tiles"]["domain"].to_numpy()
from_line = corners[:, 0] + spec.base_width / 2 - wsi.properties.shape[1] / 2
whole = np.abs(from_line) >= spec.base_width / 2
pair = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (found.astype(float), expected.astype(float))]
cosines = (pair[0] * pair[1]).sum(1)
said = {"tool": version("lazyslide"), "timm": timm.__version__, "differences": differences, "num": len(corners)}
said["cosines"] = [float(cosines.min()), float(np.median(cosines))]
print(json.dumps({**said, "score": float(adjusted_rand_score(from_line[whole] > 0, domains[whole]))}))
