"""Run by `test_real_tools` beside slide2vec: the student's embeddings by its own registry of encoders."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from slide2vec.encoders.registry import encoder_registry

folder = Path(sys.argv[1])
expected = np.load(folder / "expected.npz")
sys.path.insert(0, str(folder / "adapters"))
import slide2vec_encoder  # noqa: E402, F401  (registers the student)

encoder = encoder_registry.require(folder.name)().to("cpu")
differences = []
for transform in (encoder.get_transform(), encoder.get_normalization_transform()):
    images = torch.stack([transform(Image.fromarray(patch)) for patch in expected["patches"]])
    with torch.inference_mode():
        embeddings = encoder.encode_tiles(images).numpy()
    differences.append(float(np.abs(embeddings - expected["embeddings"]).max()))
print(json.dumps({"tool": version("slide2vec"), "timm": timm.__version__, "differences": differences}))
