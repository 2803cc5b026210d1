"""Run by `test_real_tools` beside TRIDENT: its Processor finds tissue, by a threshold in place of its networks.

Says of each slide the area of what it found, level-0 pixels as GeoPandas reads its GeoJSON, and how many regions.
"""

import json
import sys
from pathlib import Path
from typing import Any

import geopandas
import torch
import trident
from torchvision.transforms import ToTensor
from trident import Processor
from trident.segmentation_models.load import SegmentationModel

job, slides = map(Path, sys.argv[1:3])


class Threshold(SegmentationModel):  # type: ignore[misc]
    """Tissue is what is darker than glass."""

    def _build(self, **_: Any) -> tuple[torch.nn.Module, ToTensor]:
        self.input_size, self.precision, self.target_mag = 512, torch.float32, 10
        return torch.nn.Identity(), ToTensor()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Mask of patches (B, 3, P, P): uint8 (B, P, P)."""
        return (patches.mean(1) < 0.85).to(torch.uint8)


processor = Processor(job_dir=str(job), wsi_source=str(slides), max_workers=1)
processor.run_segmentation_job(Threshold(), seg_mag=10, holes_are_tissue=False, device="cpu")
found = {}
for path in sorted((job / "contours_geojson").glob("*.geojson")):
    regions = geopandas.read_file(path)
    found[path.stem] = {"area": float(regions.geometry.area.sum()), "regions": len(regions)}
print(json.dumps({"tool": trident.__version__, "crs": json.loads(path.read_text()).get("crs"), "found": found}))
