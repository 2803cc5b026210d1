"""Run by `test_real_tools` beside an older timm: the adapters' way to load a student, and timm's own."""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

folder = Path(sys.argv[1])
expected = np.load(folder / "expected.npz")
sys.path.insert(0, str(folder / "adapters"))
import eva_student  # noqa: E402

model = eva_student.load_student()
images = torch.stack([model.transform(Image.fromarray(patch)) for patch in expected["patches"]])
with torch.inference_mode():
    differences = [float(np.abs(model(images).numpy() - expected["embeddings"]).max())]
    if tuple(map(int, timm.__version__.split(".")[:3])) >= (1, 0, 16):
        own = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        if own.num_features == expected["embeddings"].shape[1]:
            differences.append(float(np.abs(own(images).numpy() - expected["embeddings"]).max()))
print(json.dumps({"tool": timm.__version__, "timm": timm.__version__, "differences": differences}))
