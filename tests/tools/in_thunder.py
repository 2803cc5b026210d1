"""Run by `test_real_tools` beside THUNDER: the student's embeddings by its own loader of custom models."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from thunder.models.utils import load_custom_model_from_file

folder = Path(sys.argv[1])
expected = np.load(folder / "expected.npz")
loaded = load_custom_model_from_file(str(folder / "adapters" / "thunder_model.py"))
model = (loaded[0] if isinstance(loaded, tuple) else loaded).eval()
transform = model.get_transform()
images = torch.stack([transform(Image.fromarray(patch)) for patch in expected["patches"]])
with torch.inference_mode():
    embeddings = model.get_embeddings(images, model, "linear_probing").numpy()
    tokens = model.get_embeddings(images, model, "segmentation")
assert embeddings.shape[1] == model.emb_dim
assert tokens.ndim == 3
assert tokens.shape[2] == (model.emb_dim_seg or model.emb_dim)
difference = float(np.abs(embeddings - expected["embeddings"]).max())
print(json.dumps({"tool": version("thunder-bench"), "timm": timm.__version__, "differences": [difference]}))
