"""Run by `test_real_tools` beside slide2vec: its pipeline on the tiles that `g2l embed --layout pt` has written."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from hs2p.configs import TilingConfig
from slide2vec.api import ExecutionOptions, Model, Pipeline, PreprocessingConfig
from slide2vec.artifacts import load_array
from slide2vec.runtime.persistence import load_tile_artifact

student, embedded, mpp = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
sys.path.insert(0, str(student / "adapters"))
import slide2vec_encoder  # noqa: E402, F401  (registers the student)

side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
tiling = TilingConfig(
    requested_spacing_um=mpp, requested_tile_size_px=side, tolerance=0.05, overlap=0.0, backend="openslide"
)
pipeline = Pipeline(
    Model.from_preset(student.name, device="cpu", allow_non_recommended_settings=True),
    PreprocessingConfig(tiling=tiling),
    execution=ExecutionOptions(output_dir=embedded / "by-slide2vec", precision="fp32", num_workers_per_gpu=0),
)
differences, loaded = [], []
for made in pipeline.run_with_coordinates(embedded).tile_artifacts:
    expected = torch.load(embedded / "tile_embeddings" / f"{made.sample_id}.pt").numpy()
    differences.append(float(np.abs(torch.load(made.path).numpy() - expected).max()))
    own = load_tile_artifact(made.sample_id, output_dir=embedded, output_format="pt", annotation=None)
    assert (own.num_tiles, own.feature_dim) == expected.shape
    loaded.append(float(np.abs(load_array(own.path).numpy() - expected).max()))
print(
    json.dumps({"tool": version("slide2vec"), "timm": timm.__version__, "differences": differences, "loaded": loaded})
)
