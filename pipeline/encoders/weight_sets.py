"""Which of the sets of weights in a file is the encoder, found by the names of its tensors; decision 0036.

Training code wraps a model's weights in dictionaries (`state_dict_ema`, `model`, `teacher`, ...) and in prefixes
(`module.`, `_orig_mod.`, `teacher.backbone.`, ...). Every place where the encoder's names stand is a set. Of several,
the one that timm takes comes first, then a teacher or other average over training (which DINO, iBOT and DINOv2
publish), then what has no such word, then the other half of a pair: a student, MoCo's and BYOL's momentum encoder.
Another one is named behind the file: `FILE::SET`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import CHOICE
from pipeline.encoders.convert import TRANSFORMERS_MARK, to_timm_names
from pipeline.encoders.weight_files import DEEPEST

TIMM_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where timm looks for weights in a checkpoint, in its order (timm 1.0.31, models/_helpers.py, load_state_dict)."""
WRAPPERS = re.compile(r"(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any depth."""
COMMON = ("module.", "backbone.")
"""Prefixes that are taken off where a set is not known by its names, such as one that timm's own filter converts."""
AVERAGED = re.compile(r"teacher|(?<![a-z])ema(?![a-z])|shadow|averag")
"""Words for the weights that are averaged over training and published (DINO, iBOT, DINOv2)."""
OTHER_HALF = re.compile(r"student|momentum|target|encoder_k|(?<![a-z])gram(?![a-z])")
"""Words for the other network of a pair, of which the first is published: DINO's student; MoCo's and BYOL's average;
an earlier teacher that DINOv3 compares Gram matrices with.
"""
HEAD = re.compile(r"(?P<name>(?:\w+_)?(?:head|fc|classifier|projector|predictor|prototypes)s?\d*)\.(?!.*norm)")
"""Names of what training puts on an encoder: a module of its own beside the encoder's. Our choice; anything else that
the architecture does not have, such as further blocks or registers, is a misfit.
"""
NUM_ANCHORS = 3
"""Names that a set is looked for by. Our choice: the first ones of a model; one of them is enough."""
SHARE_OF_NAMES = 0.5
"""Share of an encoder's names that make a set one of this encoder. Our choice: enough to tell a damaged one from
another architecture.
"""
ITSELF = "the file itself"


@dataclass(frozen=True)
class WeightSet:
    """One set of an encoder's weights in a file.

    Attributes:
        name: keys and prefix that lead to it, with dots; "" for a bare state dict.
        weights: tensors under names without the prefix.
        by_timm: whether timm's own loader takes this one.
        taken_out: what else was taken out of the names of its tensors: of `WRAPPERS` and `COMMON`.
    """

    name: str
    weights: dict[str, Tensor]
    by_timm: bool
    taken_out: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Order of preference, smallest first."""
        if self.by_timm:
            return 0
        if OTHER_HALF.search(self.name):
            return 3
        return 1 if AVERAGED.search(self.name) else 2

    @property
    def shown(self) -> str:
        """Its name, for a message."""
        return self.name or ITSELF


def find_sets(content: dict[str, Any], model: nn.Module) -> list[WeightSet]:
    """Every set of weights of this model's architecture in a file's content, the preferred one first.

    Names of DINOv2's and DINOv3's own code and of transformers count as the model's.
    """
    expected = set(model.state_dict())
    anchors = [*list(model.state_dict())[:NUM_ANCHORS], TRANSFORMERS_MARK]
    timm_path = _timm_key(content)
    sets = []
    for path, tensors, wrappers in _dictionaries(content):
        below = {prefix: _below(tensors, prefix) for prefix in _prefixes(tensors, anchors)}
        whole = _of_the_model(below, expected)
        for prefix, weights in whole.items():
            inner = tuple(other[len(prefix) :] for other in whole if other != prefix and other.startswith(prefix))
            left = {name: value for name, value in weights.items() if not name.startswith(inner)}  # of no other set
            by_timm = list(path) == timm_path and prefix in ("", "module.") and not inner
            kept = _without_heads_beside(left, model)
            taken_out = _wrappers_of(kept, prefix, wrappers)
            sets.append(WeightSet(".".join((*path, prefix)).rstrip("."), kept, by_timm, taken_out))
    return sorted(sets, key=lambda each: each.rank)


def choose_set(
    content: dict[str, Any], model: nn.Module, source: str, wanted: str = ""
) -> tuple[WeightSet, list[WeightSet]]:
    """The set of a file's content that the encoder is loaded from, and the others.

    One of another size than the model (a smaller student beside its teacher) is passed over.

    Args:
        source: the file, for messages.
        wanted: the name of a set or a part of it between dots; "" for the preferred one.

    Raises:
        EncoderError: there is none, or not exactly one of that name, or nothing tells which of several is meant.
    """
    sets = find_sets(content, model)
    if not sets:
        if wanted:
            raise EncoderError(f"{source}{CHOICE}{wanted}: no weights of this architecture are in the file")
        return _as_timm_takes(content, source), []
    if wanted:
        chosen = _named_set(sets, source, wanted)
    else:
        of_size = [each for each in sets if not _has_other_shapes(each, model)] or sets
        chosen = of_size[0]
        _require_one_first(of_size, source)
    return chosen, [each for each in sets if each is not chosen]


def _require_one_first(sets: Sequence[WeightSet], source: str) -> None:
    """See that the first of sets is the only one of its rank, or that the others of its rank are copies of it.

    Raises:
        EncoderError: nothing tells which is the encoder.
    """
    if unlike := [each for each in sets[1:] if each.rank == sets[0].rank and not _is_copy(each, sets[0])]:
        raise EncoderError(
            f"{source}: several sets of weights could be the encoder, and nothing tells which: "
            f"{_listed([sets[0], *unlike])}. Name one: {source}{CHOICE}{sets[0].shown}"
        )


def _is_copy(one: WeightSet, other: WeightSet) -> bool:
    """Whether two sets hold the same names and numbers."""
    return one.weights.keys() == other.weights.keys() and all(
        value.dtype == other.weights[name].dtype and torch.equal(value, other.weights[name])
        for name, value in one.weights.items()
    )


def _named_set(sets: Sequence[WeightSet], source: str, wanted: str) -> WeightSet:
    """The set of that name, else the one whose name has it as a part.

    Raises:
        EncoderError: there is none, or there are several.
    """
    named = [each for each in sets if wanted in (each.name, each.shown)] or [
        each for each in sets if _has(each.name, wanted)
    ]
    if len(named) != 1:
        problem = "no such set of weights" if not named else "several sets of weights have this name"
        raise EncoderError(f"{source}{CHOICE}{wanted}: {problem}; there are {_listed(sets)}")
    return named[0]


def names_note(chosen: WeightSet) -> str:
    """What was taken out of the names of a set's tensors, in words; "" if nothing was."""
    if not chosen.taken_out:
        return ""
    return f"{' and '.join(chosen.taken_out)} {'is' if len(chosen.taken_out) == 1 else 'are'} taken out of their names"


def choice_note(source: str, chosen: WeightSet, others: Sequence[WeightSet]) -> str:
    """A note on which of several sets is taken, and how another one is; "" where there is one only."""
    if not others:
        return ""
    return (
        f"note: {source} holds several sets of weights: {chosen.shown} is taken, not {_listed(others)}. "
        f"{source}{CHOICE}NAME takes another"
    )


def _dictionaries(content: dict[str, Any]) -> list[tuple[tuple[str, ...], dict[str, Tensor], dict[str, list[str]]]]:
    """Every dictionary that holds tensors, with the keys that lead to it; wrappers of torch are taken out of names, and
    listed by the name that is left.
    """
    dictionaries: list[tuple[tuple[str, ...], dict[str, Tensor], dict[str, list[str]]]] = []
    seen: set[int] = set()

    def walk(part: dict[Any, Any], path: tuple[str, ...]) -> None:
        if id(part) in seen or len(path) >= DEEPEST:
            return
        seen.add(id(part))
        tensors = {WRAPPERS.sub("", str(key)): value for key, value in part.items() if isinstance(value, Tensor)}
        if tensors:
            named = {WRAPPERS.sub("", str(key)): WRAPPERS.findall(str(key)) for key in part}
            dictionaries.append((path, tensors, {name: wrappers for name, wrappers in named.items() if wrappers}))
        for key, value in part.items():
            if isinstance(value, dict):
                walk(value, (*path, str(key)))

    walk(content, ())
    return dictionaries


def _of_the_model(below: Mapping[str, dict[str, Tensor]], expected: set[str]) -> dict[str, dict[str, Tensor]]:
    """Those sets of tensors, by their prefixes, that have enough of a model's names to be its weights."""
    least = SHARE_OF_NAMES * len(expected)
    return {prefix: weights for prefix, weights in below.items() if len(_model_names(weights) & expected) >= least}


def _wrappers_of(names: Iterable[str], prefix: str, wrappers: Mapping[str, list[str]]) -> tuple[str, ...]:
    """What was taken out of names that stand below a prefix, each once; `wrappers` is of `_dictionaries`."""
    return tuple(dict.fromkeys(each for name in names for each in wrappers.get(f"{prefix}{name}", ())))


def _prefixes(tensors: dict[str, Tensor], anchors: Sequence[str]) -> list[str]:
    """Prefixes below which one of the anchors stands, shortest first."""
    prefixes = {
        name[: -len(anchor)] for name in tensors for anchor in anchors if name == anchor or name.endswith(f".{anchor}")
    }
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _without_heads_beside(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights without those of heads that stand beside the encoder (`HEAD`), where the model has nothing of that
    name.
    """
    parts = {name.partition(".")[0] for name in model.state_dict()}
    beside = [name for name in weights if (part := HEAD.match(name)) and part["name"] not in parts]
    return {name: value for name, value in weights.items() if name not in beside}


def _model_names(weights: dict[str, Tensor]) -> set[str]:
    """A set's names as timm has them."""
    try:
        return set(to_timm_names(weights))
    except (KeyError, RuntimeError, IndexError, TypeError):  # some are missing or of odd shapes; loading will say which
        return set(weights)


def _has_other_shapes(each: WeightSet, model: nn.Module) -> bool:
    """Whether most tensors that a set shares with the model have other shapes: the same names in another size."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    shared = [name for name in each.weights if name in shapes]
    other = [name for name in shared if each.weights[name].shape != shapes[name]]
    return 2 * len(other) > len(shared)


def _timm_key(content: dict[str, Any]) -> list[str]:
    """The keys under which timm's own loader takes a checkpoint's weights; empty for the content itself."""
    for key in TIMM_KEYS:
        if content.get(key) is not None:
            return [key]
    return []


def _as_timm_takes(content: dict[str, Any], source: str) -> WeightSet:
    """The set that timm's loader takes, less `COMMON`, where no set is known by its names.

    Raises:
        EncoderError: it is no dictionary of tensors.
    """
    path = _timm_key(content)
    tensors: Any = content[path[0]] if path else content
    for key in ("teacher", "student") if not path else ():
        if isinstance(tensors.get(key), dict):
            tensors, path = tensors[key], [key]
            break
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise EncoderError(f"{source}: not a state dict of tensors")
    weights = {}
    taken_out: dict[str, None] = {}
    for key, value in tensors.items():
        name = WRAPPERS.sub("", str(key))
        taken_out |= dict.fromkeys(WRAPPERS.findall(str(key)))
        for prefix in COMMON:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                taken_out[prefix.rstrip(".")] = None
        weights[name] = value
    return WeightSet(".".join(path), weights, True, tuple(taken_out))


def _has(name: str, wanted: str) -> bool:
    """Whether `wanted` is a part of a name between dots."""
    return f".{wanted}." in f".{name}."


def _listed(sets: Sequence[WeightSet]) -> str:
    return ", ".join(each.shown for each in sets)
