"""Encoders that are known and not in the table: why, and what can be done instead.

Nothing of another repository is run here, so what is defined only by code on its page cannot be built; and what
could not be established from public sources is not guessed. Features that another tool has made with such an encoder
can be scored (`g2l evaluate --slides --features`), but it cannot be a teacher: stores hold what a teacher is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import HUB_PREFIX

SCORE = (
    "Features that another tool has made with it can be scored (g2l evaluate --slides --features). It cannot be a "
    "teacher"
)
OF_ITS_KIND = "Weights of the same architecture load as {0} (--teacher {0} --weights FILE); others are refused"


@dataclass(frozen=True)
class LeftOut:
    """An encoder that is not in the table.

    Attributes:
        page: where its weights are, or "" if no page is known.
        about: what is known of it: architecture, width, parameters, terms.
        reason: why it is not in the table.
        instead: what can be done.
    """

    page: str
    about: str
    reason: str
    instead: str = SCORE


_RUDOLF = (
    "its blocks rotate queries and keys by their place in two dimensions, which only the code on its page defines; "
    "no public source that could be read says how, and remote code is not run"
)
_RUDOLF_TERMS = "CC-BY-NC-ND-4.0 with further terms, gated; mean 0.7072 0.5787 0.7036, std 0.2119 0.2301 0.1775"
_WAIV = (
    "its page wraps the backbone in code of its own; the names of the tensors in its file could not be established, "
    "and its own output is scaled to length 1"
)
_SWIN = "its stem of convolutions is a class of its own, which timm's Swin takes as an object and no config.json holds"

# fmt: off
NOT_BUILT: Mapping[str, LeftOut] = MappingProxyType({
    "rudolfv2": LeftOut(
        "Aignostics/RudolfV-2", f"ViT-g/8 with 8 registers, 1536 or 3072 dimensions, 1.13 B; {_RUDOLF_TERMS}; "
        "revision 482d9519c6a10fc22fbe5bcd6a87d5daf056643c in slide2vec 7.1.4", _RUDOLF,
    ),
    "rudolfv2-b": LeftOut(
        "Aignostics/RudolfV-2-B", f"ViT-B/8 with 8 registers, 768 or 1536 dimensions, 85.2 M; {_RUDOLF_TERMS}; "
        "revision b2cb55c8fff8aaaf9cc16fda6d09bfb21dfc6db8 in slide2vec 7.1.4", _RUDOLF,
    ),
    "rudolfv2-s": LeftOut(
        "Aignostics/RudolfV-2-S", f"ViT-S/8 with 8 registers, 384 or 768 dimensions, 21.4 M; {_RUDOLF_TERMS}; "
        "revision 76abacd512a98c72a6db6192af9fc98313c3bd78 in slide2vec 7.1.4", _RUDOLF,
    ),
    "genbio-pathfm": LeftOut(
        "genbio-ai/genbio-pathfm", "ViT-g/16 of one channel, 4608 dimensions, 1.1 B; GenBio AI Community License; "
        "mean 0.697 0.575 0.728, std 0.188 0.240 0.187",
        "it embeds red, green and blue as three grey images and joins their class tokens, with rotary positions in "
        "bfloat16 (github.com/genbio-ai/genbio-pathfm, genbio-pathfm/model.py at 7f670aa); no timm model computes so",
    ),
    "openmidnight-1.1": LeftOut(
        "", "", "no page, file or revision of that name was found in public sources (2026-11); the released one "
        "is `openmidnight`", OF_ITS_KIND.format("openmidnight"),
    ),
    "midnight-92k": LeftOut(
        "", "Also as Midnight-92k/392", "its weights are not published (the page of kaiko-ai/midnight)",
        "g2l models midnight-12k",
    ),
    "ctranspath": LeftOut(
        "1aurent/swin_tiny_patch4_window7_224.CTransPath", "Swin-T, 768 dimensions, 27.5 M; GPL-3.0", _SWIN,
    ),
    "chief-ctranspath": LeftOut(
        "MahmoodLab/hest-bench (a dataset)", "CHIEF's CTransPath: Swin-T, 768 dimensions, 27.5 M; AGPL-3.0", _SWIN,
    ),
    "phaet": LeftOut(
        "wearewaiv/phaet", "Phikon-v2 made more robust: ViT-L/16, 1024 dimensions, 303.4 M; non-commercial, gated",
        _WAIV,
    ),
    "mascaret": LeftOut(
        "wearewaiv/mascaret", "Midnight-12k made more robust: ViT-g/14, 1536 dimensions, 1.14 B; non-commercial, gated",
        _WAIV,
    ),
    "mettle": LeftOut(
        "slideflow-labs/Mettle", "H-optimus-0 with a head on its class token, 1536 or 3072 dimensions; CC-BY-NC-ND-4.0",
        "the head is a module of its own, which timm does not have (slide2vec 7.1.4, encoders/models/mettle.py)",
    ),
})
"""By the name that tools give them, or else their own. Architectures were read in slide2vec 7.1.4, lazyslide-models
0.1.0 and TRIDENT (2026-11).
"""
# fmt: on


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_BY_NAME = {_plain(key): key for key in NOT_BUILT} | {
    _plain(each.page): key for key, each in NOT_BUILT.items() if each.page
}


def left_out_name(name: str) -> str:
    """The key of `NOT_BUILT` that an encoder's name or page stands for, by its letters and digits; "" for others."""
    return _BY_NAME.get(_plain(name.removeprefix(HUB_PREFIX).partition("@")[0]), "")


def require_buildable(name: str) -> None:
    """Refuse an encoder that is known not to be built here.

    Raises:
        EncoderError: it is one of `NOT_BUILT`; says why, and what can be done instead.
    """
    if key := left_out_name(name):
        left_out = NOT_BUILT[key]
        raise EncoderError(f"{name} cannot be built here: {left_out.reason}. {left_out.instead}")
