"""Run by `test_real_tools` beside an older ONNX Runtime: the embeddings of an exported `model.onnx`."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder = Path(sys.argv[1])
expected = np.load(folder / "expected.npz")
onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
differences = []
for count in (1, len(expected["patches"])):
    embeddings = session.run(["embedding"], {"patches": expected["patches"][:count]})[0]
    differences.append(float(np.abs(embeddings - expected["embeddings"][:count]).max()))
print(json.dumps({"tool": f"{onnxruntime.__version__}, numpy {np.__version__}", "differences": differences}))
