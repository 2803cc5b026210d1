"""Names of the files that an exported student may have beside timm's own: nothing heavy is imported for them."""

PROGRAM_FILE = "model.pt2"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
"""Weights of an ONNX file that are too large for it."""
