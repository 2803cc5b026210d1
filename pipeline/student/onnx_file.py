"""Write the student as an ONNX file by torch's exporter, and check it by ONNX Runtime.

    patches    uint8 (batch, P, P, 3), RGB as a slide reader gives it; normalised inside
    embedding  float32 (batch, D), by the student's embedding rule

`metadata_props` say what the file is. The packages come with the extra `g2l[onnx]`.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError
from pipeline.encoders.build import Encoder
from pipeline.student.program import INPUT, MAX_DIFFERENCE, OUTPUT, check_file, example, free_batch, quiet_exporter

OPSET = 18
"""The lowest opset that every student can be written in. It is what torch's exporter writes itself; one lower, a SwiGLU
has no `Split` that gives a number of outputs. ONNX Runtime reads it since 1.14 (2023).
"""
IR_VERSION = 8
"""The version of ONNX's own format that `lowest_ir_version` gives for this opset."""
OLDEST_RUNTIME = "1.15"
"""The oldest ONNX Runtime in which files were tried (decision 0037)."""
MOST_WITHIN_BYTES = 1_900_000_000
"""Weights above this lie beside the file: a protocol buffer holds 2 GiB, and the graph takes its share."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ERRORS_ONLY = 3
"""ONNX Runtime's severity: errors only."""


def require_packages() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigError: it is not; names what is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format onnx needs {', '.join(missing)}: pip install 'g2l[onnx]'")


def write_onnx(encoder: Encoder, path: Path, facts: dict[str, Any]) -> float:
    """Write the student as ONNX, load it again by ONNX Runtime and compare; returns the difference
    (`program.check_file`).

    Traces of the code, with folders of this machine, are left out of the file.

    Args:
        facts: what goes into `metadata_props` beside the format's own; values that are no text as JSON.

    Raises:
        ConfigError: the packages are not installed.
        ExportError: it cannot be traced, or the file does not give the student's embeddings.
    """
    require_packages()
    num_bytes = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    with quiet_exporter(path):
        program: Any = torch.onnx.export(
            encoder,
            example(encoder),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=free_batch(),
            verbose=False,
        )
        clear_traces(program.model)
        program.model.metadata_props.update(metadata(encoder, facts))
        program.model.ir_version = lowest_ir_version(program.model.opset_imports)
        program.save(path, external_data=num_bytes > MOST_WITHIN_BYTES)
    return check_onnx(encoder, path)


def lowest_ir_version(opsets: Mapping[str, int]) -> int:
    """The lowest version of ONNX's own format that these opsets may be written in: 8 for opset 18.

    The exporter writes its newest, which ONNX Runtime 1.17 and older refuse; what that one has more (metadata of nodes)
    `clear_traces` takes away.
    """
    import onnx  # optional: in an extra

    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid(*item) for item in opsets.items()]))


def clear_traces(model: Any) -> None:
    """Remove the notes of an exporter on the code that it traced (`onnx_ir.Model`)."""
    graph = model.graph
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.doc_string = None
        values += [node, *node.outputs]
    for noted in (graph, *values):
        noted.metadata_props.clear()


def metadata(encoder: Encoder, facts: dict[str, Any]) -> dict[str, str]:
    """The file's `metadata_props`: all text."""
    spec = encoder.spec
    props = facts | {
        "input": f"{INPUT}: uint8 (batch, {spec.patch_px}, {spec.patch_px}, 3), RGB; normalisation is inside",
        "output": f"{OUTPUT}: float32 (batch, {spec.width}), embedding rule {spec.embedding}",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "check": f"ONNX Runtime against torch, float32 on a CPU: at most {MAX_DIFFERENCE:g} of the largest value",
        "terms": "the student inherits its teacher's terms; see README.md",
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in props.items()}


def check_onnx(encoder: Encoder, path: Path) -> float:
    """Run an ONNX file by ONNX Runtime on the CPU and compare it with the student (`program.check_file`).

    Raises:
        ExportError: it is damaged, does not run, or gives other embeddings.
    """
    with quiet_exporter(path):
        import onnx  # optional: in an extra
        import onnxruntime  # likewise

        onnxruntime.disable_telemetry_events()  # where a platform has some of its own; see `pipeline.base.privacy`
        onnx.checker.check_model(path)  # by its path: weights may lie beside it
        onnxruntime.set_default_logger_severity(ERRORS_ONLY)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run([OUTPUT], {INPUT: patches})[0]
        return output

    return check_file(path, run, encoder)
