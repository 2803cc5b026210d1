"""Run by `test_real_tools` beside kaiko-eva: the student's embeddings by its own model and transform."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
import yaml
from eva.core.models import ModelFromFunction
from eva.vision.data.transforms.common import ResizeAndCrop
from torchvision import tv_tensors

folder = Path(sys.argv[1])
expected = np.load(folder / "expected.npz")
sys.path.insert(0, str(folder / "adapters"))
import eva_student  # noqa: E402

datasets = yaml.safe_load((folder / "adapters" / "eva.yaml").read_text())["data"]["init_args"]["datasets"]
transform = ResizeAndCrop(**datasets["predict"][0]["init_args"]["transforms"]["init_args"])
model = ModelFromFunction(path=eva_student.load_student).eval()
images = [transform(tv_tensors.Image(torch.from_numpy(patch).permute(2, 0, 1))) for patch in expected["patches"]]
with torch.inference_mode():
    embeddings = model(torch.stack(images)).numpy()
difference = float(np.abs(embeddings - expected["embeddings"]).max())
print(json.dumps({"tool": version("kaiko-eva"), "timm": timm.__version__, "differences": [difference]}))
