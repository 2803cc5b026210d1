"""Run by `test_real_tools` beside an older timm: the adapters' way to load a student, and timm's own.

Where the card says that this timm is too old, it must be.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def loaded(load: Callable[[], torch.nn.Module], oldest: str) -> torch.nn.Module | None:
    """What `load` gives; `None` where this timm is older than `oldest`, and it fails."""
    try:
        model = load()
    except (AssertionError, RuntimeError):
        if numbers(timm.__version__) >= numbers(oldest):
            raise
        return None
    assert numbers(timm.__version__) >= numbers(oldest), "older than the card says, and it loads"
    return model


folder, oldest, oldest_of_folders = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
expected = np.load(folder / "expected.npz")
sys.path.insert(0, str(folder / "adapters"))
import eva_student  # noqa: E402

differences = []
model = loaded(eva_student.load_student, oldest)
own = loaded(lambda: timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), oldest_of_folders)
if model is not None:
    images = torch.stack([model.transform(Image.fromarray(patch)) for patch in expected["patches"]])
    for each in filter(None, (model, own)):
        with torch.inference_mode():
            embeddings = each(images).numpy()
        assert each is own or embeddings.shape == expected["embeddings"].shape
        if each is own and 2 * embeddings.shape[1] == expected["embeddings"].shape[1]:
            continue  # timm's own of class token and mean is the class token
        differences.append(float(np.abs(embeddings - expected["embeddings"]).max()))
print(json.dumps({"tool": timm.__version__, "timm": timm.__version__, "differences": differences}))
