"""Adapters: short files in an export, with which other benchmarks and tools run the student.

eva_student.py, eva.yaml      kaiko-eva 0.4.5
lazyslide_model.py            LazySlide 0.13, a model of its registry
pathorob_model.py             PathoROB's model wrapper
plismbench_extractor.py       plismbench's extractor
slide2vec_encoder.py          slide2vec 7's registered encoder
thunder_model.py              THUNDER's custom model (thunder-bench 0.2.2)
trident_encoder.py            TRIDENT's custom encoder

Each needs timm, safetensors, torch and its tool, and nothing of this project. It finds the student in the folder above
`adapters/`. It builds the architecture by its name and loads the weights itself, so that it works whatever a version of
timm makes of a folder (before 1.0.16: nothing; decision 0037). The interfaces were read in 2026-11 (decisions 0019,
0087, 0097). `oldest_timm` says which timm this takes (decision 0093).
Left out: tools that take a timm name.
"""

import csv
from functools import cache
from importlib import resources
from pathlib import Path

from pipeline.base.versions import versions
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
    "lazyslide_model.py",
    "pathorob_model.py",
    "plismbench_extractor.py",
    "slide2vec_encoder.py",
    "thunder_model.py",
    "trident_encoder.py",
)
"""File names of the adapters. Each has a template in `data/adapters/`."""
OLDEST_TIMM = "0.9.16"
"""The oldest timm in which students were tried."""
FOLDERS_SINCE = "1.0.16"
"""The first timm that reads `local-dir:`."""
FOLDERS_LATER = dict.fromkeys(
    ("swin_", "swinv2_tiny", "swinv2_small", "swinv2_base", "swinv2_large", "davit_"), "1.0.31"
)
"""The first timm that reads folders of these: before, it takes a model without classifier for one of an old form."""
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
        "timm": oldest_timm(spec.architecture),
    }
    student = _template(STUDENT).format(**values)
    return {name: _template(name).format(student=student, **values) for name in ADAPTERS}


@cache
def _first_versions() -> dict[str, str]:
    """The first version of timm that has an architecture, by the architecture's name, of `OLDEST_TIMM` and later.

    `data/timm_versions.csv` was made of what each of these versions lists (`tests/support/timm_versions.py`).
    """
    with resources.files("pipeline").joinpath("data", "timm_versions.csv").open(encoding="utf-8") as file:
        return {row["architecture"]: row["timm"] for row in csv.DictReader(file)}


def oldest_timm(architecture: str, *, as_folder: bool = False) -> str:
    """The oldest version of timm that builds a student of this architecture: by its name, as the adapters do, or from
    its folder by `local-dir:`. For an architecture that is newer than the table: the version that is installed.
    """
    first = _first_versions().get(architecture.partition(".")[0])
    if first is None:
        return versions()["timm"]
    if not as_folder:
        return first
    later = [version for kind, version in FOLDERS_LATER.items() if architecture.startswith(kind)]
    return max(first, FOLDERS_SINCE, *later, key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    """A version such as "1.0.16" as numbers that compare."""
    return tuple(map(int, version.split(".")))


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
