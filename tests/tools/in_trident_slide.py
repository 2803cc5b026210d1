"""Run by `test_real_tools` beside TRIDENT: its Processor on the coordinates of `g2l embed --layout trident`.

Says how far each slide's features are from those of `embed`, as difference and as cosine of patches; and how far the
means that its slide encoder makes of the features of `embed`, which it loads itself, are from theirs.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import trident
from trident import Processor
from trident.slide_encoder_models.load import MeanSlideEncoder

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
name = f"mean-{ours.name.removeprefix('features_')}"
mean = MeanSlideEncoder(model_name="mean-default")
mean.enc_name = name  # its own names are of its own patch encoders
of_slides = Path(
    processor.run_slide_feature_extraction_job(mean, coords_dir=grid.name, device="cpu", saveto=f"{grid.name}/means")
)
means = []
for path in sorted(of_slides.glob("*.h5")):
    with h5py.File(path) as made, h5py.File(ours / path.name) as embedded:
        expected = embedded["features"][()].astype(np.float64)
        means.append(float(np.abs(made["features"][()] - expected.reshape(-1, expected.shape[-1]).mean(0)).max()))
print(json.dumps({"means": means, "tool": trident.__version__, "differences": differences, "cosines": cosines}))
