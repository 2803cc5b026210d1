"""Sections of a student's card: how its data were split, under which terms it stands, and the files of an export.

`folder.model_card` puts the card together when training ends; `g2l export` adds what it wrote (`with_files`).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.base.outside import printable
from pipeline.cohort.cases import CaseFacts, cases_in_words
from pipeline.config.model_names import SCRATCH
from pipeline.encoders.hub import page_of
from pipeline.encoders.table import EncoderSpec
from pipeline.student.onnx_file import OPSET
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE
from pipeline.student.program import INPUT, OUTPUT, TOLERANCE
from pipeline.student.teacher_projectors import FIRST, FOLDER

MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "*": "&#42;", "[": "&#91;",
          "]": "&#93;", "\\": "&#92;"}  # fmt: skip
"""Characters that Markdown or HTML would take for their own, and how they are written to be seen."""
MADE_FROM = "## Made from\n"
"""Heading before which the sections on files stand."""

USES = {
    ONNX_FILE: f"""**ONNX**, opset {OPSET}. Normalisation is inside: give pixels as a slide reader gives them.

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("PATH/{ONNX_FILE}")
patches = np.stack([np.asarray(patch)])  # uint8 (B, {{px}}, {{px}}, 3), RGB; any B
embedding = session.run(["{OUTPUT}"], {{{{"{INPUT}": patches}}}})[0]  # float32 (B, {{width}})
```
""",
    PROGRAM_FILE: f"""**torch.export**, for torch (of the version named below, or newer) without timm. It runs on the
CPU; normalisation is inside. `torch.export.passes.move_to_device_pass` moves it to a GPU.

```python
import numpy as np
import torch

model = torch.export.load("PATH/{PROGRAM_FILE}").module()
patches = np.stack([np.asarray(patch)])  # uint8 (B, {{px}}, {{px}}, 3), RGB; any B
embedding = model(torch.from_numpy(patches))  # float32 (B, {{width}})
```
""",
}
"""How a file beside the timm folder is used, by its name."""


def in_markdown(value: Any) -> Any:
    """`value` with every text in it, at any depth, as one line that Markdown shows and does not take for markup: names
    and paths come from files of anybody.
    """
    if isinstance(value, str):
        line = " ".join(printable(value).split())
        return "".join(MARKUP.get(c, c) for c in line)
    if isinstance(value, dict):
        return {in_markdown(name): in_markdown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(in_markdown, value))
    return value


def split_words(store: dict[str, Any]) -> str:
    """How the rows were split, in a sentence; `store` is of `folder.card_facts`."""
    if not store["val_rows"]:
        return "Nothing was held out."
    if store["val_strip"]:
        return (
            "The split is in space: a strip of each slide was held out, so that slides and cases are on both sides. It "
            "says nothing of other cases."
        )
    return (
        f"{cases_in_words(CaseFacts(**store['cases']))} Which they are stands in the plan of this hash; ids are left "
        "out here, since they may identify patients."
    )


def model_terms(role: str, record: dict[str, Any]) -> str:
    """Under which terms one model stands and what that means for the student, as an item of a list."""
    if record["weights"] == SCRATCH:
        return f"- {role}: random weights, no terms."
    licence = record["licence"] or "unknown"
    said = [f"- {role}: {licence}."]
    lower = licence.lower()
    if "non-commercial" in lower or "-nc" in lower:
        said.append("Non-commercial: the student must not be used commercially either.")
    if record.get("gated") or "gated" in lower:
        said.append("Gated: access goes to those who accept its terms; read whether they let you pass the student on.")
    if "unknown" in lower or "see " in lower:
        said.append("Read its terms before you use or share the student.")
    page = page_of(EncoderSpec.from_record(record))
    return " ".join(said) + (f" <{page}>" if page else "")


def terms_section(teachers: Sequence[dict[str, Any]], student: dict[str, Any]) -> str:
    """The terms of the student: those of its teachers, of the weights that it started from, and of its slides."""
    inherited = "\n".join(model_terms("Teacher", teacher) for teacher in teachers)
    return f"""## Terms

A student inherits its teacher's terms: it is made from the teacher's embeddings, and what the teacher's licence forbids
or asks of derived models holds for it. The terms of the weights that it started from hold as well, and those of the
slides. Where they differ, keep to the strictest.

{inherited}
{model_terms("Student's start", student)}

Not a medical device; for research."""


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
        projectors: files of projectors by teachers' names, of a student of several (`named_projectors`).
        sha256: hashes of files by name.
    """
    listing = {"model.safetensors, config.json": "the student for timm"}
    if projectors:
        listing |= {file: f"its map into {teacher}'s space" for teacher, file in projectors.items()}
        listing["projectors.json"] = "the files of these maps by teachers' names"
    else:
        listing[f"{FOLDER}/{FIRST}"] = "its map into the teacher's space"
    for name, share in differences.items():
        listing[name] = f"the student by itself; differs from torch by {share:.1g} of the largest value"
    if weights_beside:
        listing[WEIGHTS_FILE] = f"weights of `{ONNX_FILE}`, which must lie beside it"
    listing["adapters/"] = "for benchmarks and tools of others"
    lines = ["## Files", "", "| file | what |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in listing.items()]
    if differences:
        lines += ["", f"Each was compared with torch when it was written; {TOLERANCE:g} is allowed."]
    if sha256:
        lines += ["", "SHA-256:", "", *(f"    {digest}  {name}" for name, digest in sha256.items())]
    uses = [USES[name].format(px=spec.patch_px, width=spec.width) for name in differences]
    return "\n".join([*lines, "", *uses])


def with_files(card: str, *sections: str) -> str:
    """A card with further sections, before what the student was made from (at the end of a card without that)."""
    text = "\n".join(f"{section.strip()}\n" for section in sections)
    before, heading, after = card.partition(MADE_FROM)
    return f"{before}{text}\n{heading}{after}" if heading else f"{card}\n{text}"
