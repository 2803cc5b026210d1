"""Names of the files that `g2l export` may add to a student; importing them imports nothing heavy."""

PROGRAM_FILE = "model.pt2"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
"""Weights of an ONNX file that are too large for it."""
