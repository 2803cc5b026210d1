"""Run by `test_real_tools` beside TRIDENT: the student's embeddings by its own custom encoder."""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import trident
from packaging.version import Version
from PIL import Image

folder, oldest = Path(sys.argv[1]), Version(sys.argv[2])
expected = np.load(folder / "expected.npz")
sys.path.insert(0, str(folder / "adapters"))
import trident_encoder  # noqa: E402

differences = []
if Version(timm.__version__) >= oldest:
    encoder = trident_encoder.build_encoder().eval()
    assert (encoder.enc_name, encoder.precision) == (folder.name, torch.float32)
    images = torch.stack([encoder.eval_transforms(Image.fromarray(patch)) for patch in expected["patches"]])
    with torch.inference_mode():
        embeddings = encoder(images).numpy()
    differences.append(float(np.abs(embeddings - expected["embeddings"]).max()))
print(json.dumps({"tool": trident.__version__, "timm": timm.__version__, "differences": differences}))
