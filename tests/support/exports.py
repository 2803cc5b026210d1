"""What exported students are held against: timm's own embeddings, and a file that is damaged on purpose."""

from pathlib import Path

import numpy as np
import onnx
import timm
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.encoders.build import BuiltEncoder
from support.extraction import embed_by_timm


def by_timm(student: BuiltEncoder, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The embeddings as the card says that timm gives them, with timm's own transform."""
    model = timm.create_model(student.spec.source, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return embed_by_timm(model, transform, patches, "cls+mean" if student.spec.embedding == "cls+mean" else "pooled")


def taken_by_timm_1_0_16(folder: Path) -> str:
    """Name of the file of weights that timm 1.0.16 to 1.0.28 take from a folder (`load_state_dict_from_path`).

    They find `model.safetensors` and look on: of each ending the first file, and the last ending wins.

    Raises:
        NameError: two files have one ending; their warning about it has a wrong name.
    """
    taken = ""
    for ending in (".safetensors", ".pth", ".pth.tar", ".bin"):
        names = sorted(path.name for path in folder.glob(f"*{ending}"))
        if len(names) > 1:
            raise NameError("name 'names' is not defined")
        taken = names[0] if names else taken
    return taken


def tamper(path: Path) -> None:
    """Move one weight of an ONNX file."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.flat[:: max(1, values.size // 50)] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
