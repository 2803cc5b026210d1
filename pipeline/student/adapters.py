"""Adapters: short files in an export, with which other benchmarks and tools run the student.

eva_student.py, eva.yaml      kaiko-eva 0.4.5
pathorob_model.py             PathoROB's model wrapper
plismbench_extractor.py       plismbench's extractor
slide2vec_encoder.py          slide2vec 7's registered encoder
thunder_model.py              THUNDER's custom model (thunder-bench 0.2.2)
trident_encoder.py            TRIDENT's custom encoder

Each needs timm, safetensors, torch and its tool, and nothing of this project. It finds the student in the folder above
`adapters/`. It builds the architecture by its name and loads the weights itself, so that it works whatever a version of
timm makes of a folder (before 1.0.16: nothing; decision 0037). The interfaces were read in 2026-11 (decisions 0019,
0087).
Left out: tools that take a timm name.
"""

from importlib import resources
from pathlib import Path

from pipeline.disk.files import write_text
from pipeline.encoders.table import EmbeddingRule, EncoderSpec

ADAPTERS_FOLDER = "adapters"
CRC_PATCH_UM = 224 * 0.5
"""Side of a patch of NCT-CRC-HE, um (Kather et al., 2019)."""

FORWARD: dict[EmbeddingRule, str] = {
    "pooled": "return self.model(images)",
    "cls": "return self.model(images)",  # the export's own output is the class token
    "cls+mean": (
        "tokens = self.model.forward_features(images)\n"
        "        patches = tokens[:, self.model.num_prefix_tokens :]\n"
        "        return torch.cat([tokens[:, 0], patches.mean(1)], dim=1)"
    ),
}
"""How the module of an adapter takes the embedding, by the rule."""

ADAPTERS = (
    "eva.yaml",
    "eva_student.py",
    "pathorob_model.py",
    "plismbench_extractor.py",
    "slide2vec_encoder.py",
    "thunder_model.py",
    "trident_encoder.py",
)
"""File names of the adapters. Each has a template in `data/adapters/`."""
STUDENT = "student.py"
"""The template of the module that builds the student, which the adapters in Python have in them."""


def adapter_texts(spec: EncoderSpec) -> dict[str, str]:
    """The text of every adapter for a student of this spec, by file name."""
    values = {
        "width": spec.width,
        "px": spec.patch_px,
        "crc_mpp": CRC_PATCH_UM / spec.patch_px,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "forward": FORWARD[spec.embedding],
    }
    student = _template(STUDENT).format(**values)
    return {name: _template(name).format(student=student, **values) for name in ADAPTERS}


def _template(name: str) -> str:
    """A file's text with named fields, for `str.format`."""
    return resources.files("pipeline").joinpath("data", "adapters", f"{name}.tmpl").read_text("utf-8")


def write_adapters(folder: Path, spec: EncoderSpec) -> None:
    """Write the adapters below an exported student's folder.

    Raises:
        OSError: they cannot be written.
    """
    place = folder / ADAPTERS_FOLDER
    place.mkdir()
    for name, text in adapter_texts(spec).items():
        write_text(place / name, text)
