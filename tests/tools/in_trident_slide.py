"""Run by `test_real_tools` beside TRIDENT: its Processor on the coordinates of `g2l embed --layout trident`.

Says how far each slide's features are from those of `embed`, as difference and as cosine of patches.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import trident
from trident import Processor

student, job, slides = map(Path, sys.argv[1:4])
sys.path.insert(0, str(student / "adapters"))
from trident_encoder import build_encoder  # noqa: E402

(grid,) = (path for path in job.iterdir() if (path / "patches").is_dir())
(ours,) = grid.glob("features_*")
processor = Processor(job_dir=str(job), wsi_source=str(slides), max_workers=1)
place = Path(
    processor.run_patch_feature_extraction_job(
        coords_dir=grid.name, patch_encoder=build_encoder(), device="cpu", saveto="by-trident"
    )
)
differences, cosines = [], []
for path in sorted(place.glob("*.h5")):
    with h5py.File(path) as made, h5py.File(ours / path.name) as embedded:
        assert np.array_equal(made["coords"][()], embedded["coords"][()])
        first, second = (
            file["features"][()].astype(np.float64).reshape(-1, file["features"].shape[-1]) for file in (made, embedded)
        )
    differences.append(float(np.abs(first - second).max()))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    of_patches = (first * second).sum(1) / lengths
    cosines.append({"patches": len(first), "least": float(of_patches.min()), "median": float(np.median(of_patches))})
print(json.dumps({"tool": trident.__version__, "differences": differences, "cosines": cosines}))
