"""Sections of the card on the files of an export, and how each is used: what `g2l export` adds to the card.

The texts are templates in `data/card/`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.encoders.table import EncoderSpec
from pipeline.student.adapters import CRC_PATCH_UM
from pipeline.student.card import card_template
from pipeline.student.earlier import PROJECTORS_JSON
from pipeline.student.onnx_file import IR_VERSION, OLDEST_RUNTIME, OPSET
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE
from pipeline.student.program import INPUT, MAX_DIFFERENCE, OUTPUT
from pipeline.student.student_json import FIRST_PROJECTOR, STUDENT_JSON

MADE_FROM = "## Made from\n"
"""Heading before which the sections on files stand."""
USES = {ONNX_FILE: "onnx.md", PROGRAM_FILE: "torch_export.md"}
"""Templates on how a file is used, by the file's name."""
TWENTY_X_MPP = 0.5
"""Resolution that TRIDENT calls 20x, um/px; it counts in magnifications."""
HASHED = re.compile(r"^    ([0-9a-f]{64})  (.+)$", re.MULTILINE)
"""A line of the card with a file's SHA-256."""
SAME_RESOLUTION = 0.02
"""Resolutions that differ by less are the same. Our choice: scanners name 0.25 what is 0.2527."""


def files_section(
    spec: EncoderSpec,
    differences: dict[str, float],
    *,
    weights_beside: bool = False,
    projectors: Mapping[str, str] = MappingProxyType({}),
    sha256: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What is in the folder of an export, and how each file is used.

    Args:
        differences: of each file beside the timm folder, as `program.check_file` gives it.
        weights_beside: whether the weights of the ONNX file are in a file of their own.
        projectors: files of projectors by teachers' names, of a student of several (`ExportedStudent.projector_files`).
        sha256: hashes of files by name.
    """
    listing = {"model.safetensors, config.json": "the student for timm"}
    if projectors:
        listing |= {file: f"its map into {teacher}'s space" for teacher, file in projectors.items()}
        listing[PROJECTORS_JSON] = "the files of these maps by teachers' names"
    else:
        listing[FIRST_PROJECTOR] = "its map into the teacher's space"
    for name, share in differences.items():
        listing[name] = f"the student by itself; differs from torch by {share:.1g} of the largest value"
    if weights_beside:
        listing[WEIGHTS_FILE] = f"weights of `{ONNX_FILE}`, which must lie beside it"
    listing[STUDENT_JSON] = "what programs read: encoder, teachers, plan, projectors"
    listing["adapters/"] = "for benchmarks and tools of others"
    lines = ["## Files", "", "| file | what |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in listing.items()]
    if differences:
        lines += ["", f"Each was compared with torch when it was written; {MAX_DIFFERENCE:g} is allowed."]
    if sha256:
        lines += ["", "SHA-256:", "", *(_hash_line(name, digest) for name, digest in sha256.items())]
    uses = [
        card_template(USES[name]).format(
            file=name,
            opset=OPSET,
            ir=IR_VERSION,
            runtime=OLDEST_RUNTIME,
            input=INPUT,
            output=OUTPUT,
            px=spec.patch_px,
            width=spec.width,
        )
        for name in differences
    ]
    return "\n".join([*lines, "", *uses])


def _hash_line(name: str, digest: str) -> str:
    return f"    {digest}  {name}"


def with_hash(card: str, name: str, digest: str) -> str:
    """A card that lists hashes, with that of another file after them."""
    *_, last = HASHED.finditer(card)
    return f"{card[: last.end()]}\n{_hash_line(name, digest)}{card[last.end() :]}"


def with_files(card: str, *sections: str) -> str:
    """A card with further sections, before what the student was made from (at the end of a card without that)."""
    text = "\n".join(f"{section.strip()}\n" for section in sections)
    before, heading, after = card.partition(MADE_FROM)
    return f"{before}{text}\n{heading}{after}" if heading else f"{card}\n{text}"


def adapters_section(patch_px: int, mpp: float) -> str:
    """How each adapter is used, for the card; `mpp` is 0 where it is not known."""
    resolution = f"{mpp:g}" if mpp else "the card's"
    times = TWENTY_X_MPP * 20 / mpp if mpp else 20.0
    notes = []
    if mpp and abs(CRC_PATCH_UM / patch_px / mpp - 1) > SAME_RESOLUTION:
        notes.append(
            f"eva resizes CRC's patches of {CRC_PATCH_UM:g} um to {patch_px} px, {CRC_PATCH_UM / patch_px:.3g} um/px. "
            f"The student was trained at {mpp:g} um/px: such scores are of another magnification than its own."
        )
    if not times.is_integer():
        notes.append(
            f"TRIDENT cuts patches at whole magnifications, and {mpp:g} um/px is {times:.3g}x: let `g2l embed --layout "
            "trident` write its files instead."
        )
    use = card_template("adapters.md").format(px=patch_px, mpp=resolution, magnification=f"{times:g}x")
    return "\n\n".join([use.rstrip("\n"), *notes]) + "\n"
