"""Run by `test_real_tools` beside croma: its robustness index of what the exported student gives in timm.

Arguments: the student's folder, PathoROB's table of images, numbers of neighbours.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import timm
import torch
from croma import RI
from PIL import Image

student, table = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(student / "adapters"))
import eva_student  # noqa: E402  (of all adapters the plainest)

rows = pd.read_csv(table, dtype=str)
model = eva_student.load_student()
images = torch.stack([model.transform(Image.open(table.parent / path)) for path in rows["path"]])
with torch.inference_mode():
    embeddings = model(images).numpy()
manifest = rows.rename(columns={"biological_class": "label", "medical_center": "center", "slide_id": "group_id"})
manifest = manifest.assign(sample_id=rows["patch_id"], image_path=rows["path"]).drop(columns="subset")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of support, which is not asked about
    curve = RI.compute_curve(embeddings, manifest, confounder_column="center", k_values=list(map(int, sys.argv[3:])))
said = {"tool": version("croma"), "timm": timm.__version__}
print(json.dumps({**said, "index": {k: float(value) for k, value in curve.items()}}))
