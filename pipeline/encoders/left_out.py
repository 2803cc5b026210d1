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
BY_ADDRESS = (
    "Name it by its page (--teacher hf-hub:{0}): timm then takes architecture and statistics from the page's "
    "config.json, and the embedding is the model's own output. See that it equals what the page's example gives "
    "(g2l models hf-hub:{0} --check --values FILE)"
)


@dataclass(frozen=True)
class LeftOut:
    """An encoder that is not in the table.

    Attributes:
        page: where its weights are, or "" if no page is known.
        about: what is known of it: architecture, width, parameters, terms.
        reason: why it is not in the table.
        instead: what can be done.
        by_address: whether timm builds it from its page alone, by what the page shows: then `hf-hub:` and the page is
            not refused.
    """

    page: str
    about: str
    reason: str
    instead: str = SCORE
    by_address: bool = False


_RUDOLF = (
    "its blocks rotate queries and keys by their place in two dimensions, which only the code on its page defines; "
    "no public source that could be read says how, and remote code is not run"
)
_RUDOLF_TERMS = "CC-BY-NC-ND-4.0 with further terms, gated; mean 0.7072 0.5787 0.7036, std 0.2119 0.2301 0.1775"
_WAIV = (
    "its page wraps the backbone in code of its own; the names of the tensors in its file could not be established, "
    "and its own output is scaled to length 1"
)
_UNREAD = (
    "the beginning of its page could be read, but not its config.json, which holds architecture, statistics and "
    "pooling; no um/px, licence, gating or revision was found in public sources (2026-11), so nothing of it can be "
    "pinned or tested here"
)


def _medarc(name: str, about: str) -> LeftOut:
    """A model of MedARC's whose page loads it with timm and nothing else."""
    page = f"medarc/{name}"
    words = f"{about}, 1536 dimensions; its page loads it with timm 1.0.30 and no code of its own"
    return LeftOut(page, words, _UNREAD, BY_ADDRESS.format(page), by_address=True)


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
    "openmidnight-1.1": _medarc("OpenMidnight-1.1", "By MedARC and Sophont, class token"),
    "openmidnight-1.1-spectra": _medarc(
        "OpenMidnight-1.1-SPECTRA", "OpenMidnight 1.1 made more robust to scanners and stains",
    ),
    "openmidnight-1.0-spectra": _medarc(
        "OpenMidnight-1.0-SPECTRA", "OpenMidnight made more robust, read on another owner's copy of its page",
    ),
    "h-optimus-0-spectra": _medarc("H-optimus-0-SPECTRA", "H-optimus-0 made more robust to scanners and stains"),
    "virchow-spectra": LeftOut(
        "medarc/Virchow-SPECTRA", "Virchow made more robust to scanners and stains, 2560 dimensions; timm 1.0.30",
        "its page gives timm two layers as classes, which no config.json holds; " + _UNREAD,
    ),
    "midnight-12k-spectra": LeftOut(
        "medarc/Midnight-12k-SPECTRA", "Midnight-12k made more robust to scanners and stains, 3072 dimensions; "
        "transformers 4.57.6", "its page is for transformers, so that timm does not open it; " + _UNREAD,
    ),
    "midnight-92k": LeftOut(
        "", "Also as Midnight-92k/392", "access to its weights is restricted and no page of them was found "
        "(the page of kaiko-ai/midnight; 2026-11)",
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


def is_open_address(name: str) -> bool:
    """Whether a name is the address of a page that is left out of the table and that timm builds by itself."""
    key = left_out_name(name)
    return bool(key) and name.startswith(HUB_PREFIX) and NOT_BUILT[key].by_address


def require_buildable(name: str) -> None:
    """Refuse an encoder that is known not to be built here.

    Raises:
        EncoderError: it is one of `NOT_BUILT`; says why, and what can be done instead.
    """
    if (key := left_out_name(name)) and not is_open_address(name):
        left_out = NOT_BUILT[key]
        raise EncoderError(f"{name} cannot be built here: {left_out.reason}. {left_out.instead}")
