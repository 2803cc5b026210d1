"""What tools call the encoders: names in feature files that stand for an entry of the table, or for an encoder that is
not in it; and whether such names can be a teacher's.

Read in 2026-11: TRIDENT's `trident/patch_encoder_models/load.py` (`encoder_factory`), STAMP's `ExtractorName` in
`src/stamp/preprocessing/config.py` with the identifiers in `extractor/`, of several versions, and slide2vec's presets
in `docs/models.rst`. Names count by their letters and digits: `phikon_v2`, `phikonv2` and `Phikon-v2` are one.
TRIDENT's `virchow2-cls` is an encoder of its own here: another embedding than the table's. What it leaves out: encoders
of whole slides, and which of the embeddings of one encoder a tool took: their widths tell those apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX
from pipeline.encoders.table import ENCODERS

OF_TABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "h0-mini-mean": ("h0-mini",),  # TRIDENT and slide2vec have one name for both embeddings
        "lunit-vits16": ("lunit-dino-s16",),
        "lunit-vits8": ("lunit", "lunit-dino-s8"),
        "midnight-12k-cls": ("midnight-12k",),  # likewise, of TRIDENT
        "uni": ("uni_v1", "mahmood-uni", "mahmood-uni-77ffbca1"),
        "uni2-h": ("uni_v2", "uni2", "mahmood-uni2"),
        "virchow": ("virchow-full",),
    }
)
"""Tools' names by the table's, where they differ in more than punctuation and capitals; an entry of the table need not
be here.
"""
NOT_IN_TABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CONCH": ("conch", "conch_v1", "mahmood-conch"),
        "CONCH 1.5": ("conch_v15", "conch1_5", "mahmood-conch1_5"),
        "CTransPath": ("ctranspath",),
        "CHIEF's CTransPath": ("chief-ctranspath",),
        "DigePath": ("digepath",),
        "DinoBloom": ("dino-bloom",),
        "GenBio-PathFM": ("genbio-pathfm",),
        "iSight": ("isight",),
        "KEEP": ("keep",),
        "KRONOS": ("kronos", "kronos2"),
        "Mascaret": ("mascaret",),
        "Mettle": ("mettle",),
        "mSTAR": ("mstar",),
        "MUSK": ("musk",),
        "Phaet": ("phaet",),
        "PLIP": ("plip",),
        "Prost40M": ("prost40m",),
        "RedDino": ("red-dino",),
        "ResNet-50 of ImageNet": ("resnet50",),
        "RudolfV 2": ("rudolfv2",),
        "RudolfV 2-B": ("rudolfv2-b",),
        "RudolfV 2-S": ("rudolfv2-s",),
        "TICON": ("ticon",),
        "Virchow2's class token": ("virchow2-cls",),
    }
)
"""Tools' names of other encoders, by what they are called here."""


AS_TEACHER = "-as-"
"""In names that `g2l embed --as-teacher` gives, `<label>-as-<teacher>`: of a student's embeddings."""
PAGES = (HUB_PREFIX, "timm:")
"""What may stand before a page's address or a timm name."""
OWNER = re.compile(r"^[\w.-]+/(?=[^/]+$)")
"""One owner before a name."""


def letters(name: str) -> str:
    """A name's letters and digits, in lower case: of a page without its owner and revision, of a folder its last part.

    Nothing else is left out: what stands before a name may make it another one.
    """
    if name.startswith(FOLDER_PREFIX):
        short = name.removeprefix(FOLDER_PREFIX).rstrip("/").split("/")[-1]
    else:
        for before in PAGES:
            name = name.removeprefix(before)
        short = OWNER.sub("", name.partition("@")[0])
    return "".join(c for c in short.lower() if c.isalnum())


def encoders_named(name: str) -> frozenset[str]:
    """The encoders that a name may stand for: entries of the table, or keys of `NOT_IN_TABLE`; none if unknown.

    Besides tools' names, an entry's own name and that of its published weights stand for it.
    """
    return _BY_LETTERS.get(letters(name), frozenset())


def are_of_one(names: Iterable[str]) -> bool:
    """Whether names may all stand for one encoder: one spelling, or several of the same encoder."""
    candidates = {letters(name): encoders_named(name) for name in names}
    return len(candidates) < 2 or bool(frozenset.intersection(*candidates.values()))


def _by_letters() -> dict[str, frozenset[str]]:
    encoders: dict[str, frozenset[str]] = {}
    names = {key: (*OF_TABLE.get(key, ()), key, spec.source) for key, spec in ENCODERS.items()}
    for encoder, its_names in {**names, **NOT_IN_TABLE}.items():
        for name in its_names:
            encoders[letters(name)] = encoders.get(letters(name), frozenset()) | {encoder}
    return encoders


_BY_LETTERS = _by_letters()


def other_encoders(encoders: Sequence[str], teacher: Mapping[str, Any]) -> list[str]:
    """Encoder names in files that tell nothing: neither the teacher's, by its record, nor known to be another's.

    Raises:
        ConfigError: a name is that of another encoder, where it is known which one the teacher is, or of a student in
            the teacher's space.
    """
    teachers_names = {letters(teacher["name"]), letters(teacher["source"])}
    if teacher["name"] in ENCODERS:
        known = frozenset({str(teacher["name"])})
    else:  # any weights may lie in a folder, or be given for a timm name, unless its name says which
        known = encoders_named(teacher["name"]) | encoders_named(teacher["source"])
    unknown = []
    for name in encoders:
        if AS_TEACHER in name and AS_TEACHER not in teacher["name"]:
            raise ConfigError(
                f"the files name the encoder {name}: `g2l embed --as-teacher` calls the embeddings of a "
                f"student so, and they are not {teacher['name']}'s own. Name the folder with the "
                f"features of {teacher['name']}"
            )
        candidates = encoders_named(name)
        if letters(name) in teachers_names or candidates & known:
            continue
        if candidates and known:
            which, in_table = " or ".join(sorted(candidates)), candidates <= ENCODERS.keys()
            fix = f"Give --teacher {which}" if in_table else "It is not in the table of `g2l models`"
            encoder = name if which == name else f"{name}, which is {which}"
            raise ConfigError(
                f"the files name the encoder {encoder}; --teacher says {teacher['name']}. {fix}, "
                f"or name the folder with the features of {teacher['name']}"
            )
        unknown.append(name)
    return unknown
