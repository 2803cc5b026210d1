"""Run by `test_real_tools` beside kaiko-eva: where its embeddings part from the student's, on values of up to 9.8.

Argument: the student's folder. All differences are the largest, absolute, after the embeddings are scaled so that the
largest is 9.8; "by float64" is how far float32 is off, whoever computes.
"""

import copy
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from eva.vision.data.transforms.common import ResizeAndCrop
from PIL import Image
from torchvision import tv_tensors

LARGEST = 9.8
folder = Path(sys.argv[1])
patches = np.load(folder / "expected.npz")["patches"]
sys.path.insert(0, str(folder / "adapters"))
import eva_student  # noqa: E402

student = eva_student.load_student()
told = timm.data.resolve_model_data_config(student.model)
mean, std = (torch.tensor(told[name], dtype=torch.float64).view(3, 1, 1) for name in ("mean", "std"))
transform = ResizeAndCrop(size=told["input_size"][1], mean=told["mean"], std=told["std"])
pixels = torch.from_numpy(patches).permute(0, 3, 1, 2)
inputs = {
    "own": torch.stack([student.transform(Image.fromarray(patch)) for patch in patches]),
    "eva": torch.stack([transform(tv_tensors.Image(patch)) for patch in pixels]),
    "eva by division": ((pixels.float() / 255) - mean.float()) / std.float(),  # ToDtype multiplies by 1/255 instead
}
with torch.inference_mode():
    found = {name: student(images) for name, images in inputs.items()}
    found["one by one"] = torch.cat([student(image[None]) for image in inputs["eva"]])
    exact = copy.deepcopy(student).double()((pixels.double() / 255 - mean) / std)
scale = LARGEST / found["own"].abs().max().double()


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max() * scale)


said = {
    "inputs": float((inputs["own"] - inputs["eva"]).abs().max()),
    "eva": apart(found["own"], found["eva"]),
    "eva by division": apart(found["own"], found["eva by division"]),
    "batch": apart(found["eva"], found["one by one"]),
    "own by float64": apart(found["own"], exact),
    "eva by float64": apart(found["eva"], exact),
}
print(json.dumps({"tool": version("kaiko-eva"), "timm": timm.__version__, **said}))
