"""Where an encoder's weights come from: the file that a user names or a page has, which set of it is the encoder, and
what of it is left out. What is left out of a user's file is said, in a note.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.errors import EncoderError, did_you_mean
from pipeline.config.model_names import CHOICE, FOLDER_PREFIX, PRETRAINED, SCRATCH, is_run, split_choice
from pipeline.encoders.forms.foreign import way_from_file, way_from_folder
from pipeline.encoders.forms.shards import read_weights
from pipeline.encoders.hub import fetch_published, published_files, weights_here, weights_in
from pipeline.encoders.load import load_weights
from pipeline.encoders.positions import resampled_positions, stretched_as_published
from pipeline.encoders.table import EncoderSpec
from pipeline.encoders.weight_files import tensors_of
from pipeline.encoders.weight_sets import WRAPPERS, WeightSet, choice_note, choose_set, names_note

MOST_PARTS = 6
"""Parts of a file that a note names as left out. Our choice; it counts the others."""


def find_weights(path: Path, spec: EncoderSpec) -> Path:
    """The file of a model's weights that a path names: itself, or the one (or the index of several) in a folder under a
    published name; of a run of stage two its student's.

    Raises:
        EncoderError: the folder has none, or there is no such file.
    """
    if not path.is_dir():
        if not path.exists():
            if str(path) == SCRATCH:
                raise EncoderError("a teacher is not started from scratch: --weights takes a file or folder of weights")
            raise EncoderError(f"{path}: no such weights{did_you_mean(str(path), (PRETRAINED, SCRATCH))}")
        return path
    file = weights_in(path / "student" if is_run(path) else path, spec)
    if file is None:
        names = " or ".join(published_files(spec))
        raise EncoderError(f"{path}: no {names} is in this folder{way_from_folder(path)}")
    return file


def read_source(spec: EncoderSpec, weights: str | Path) -> "ReadWeights":
    """The file that `weights` names, or the one of the model's own page or folder, read.

    Raises:
        EncoderError: there is none, or it is damaged.
    """
    if weights == PRETRAINED:
        of_folder = weights_here(spec) if spec.source.startswith(FOLDER_PREFIX) else None
        file = of_folder or fetch_published(spec)
        return ReadWeights(file, read_weights(file), "", "" if of_folder else spec.source, spec.page)
    place, chosen_set = split_choice(Path(weights))
    file = find_weights(place, spec)
    return ReadWeights(file, read_weights(file), chosen_set, "", spec.page)


@dataclass(frozen=True, eq=False)
class ReadWeights:
    """A file of weights that has been read, or the files of an index.

    Attributes:
        file: which one.
        content: what is in it.
        chosen_set: the set of several that the user names; empty to choose by the names of tensors.
        published_as: where the file was published, for messages; empty for a file that the user gives.
        page: the page of the encoder, which says how its positions are stretched.
    """

    file: Path
    content: dict[str, Any]
    chosen_set: str
    published_as: str
    page: str = ""

    def load_into(self, model: nn.Module) -> str:
        """Choose the encoder's set and load it; returns a note on what is taken and what is left out, "" where that is
        all there is, or a page's file.

        Raises:
            EncoderError: there is no such set, or it does not fit.
        """
        try:
            chosen, others = choose_set(self.content, model, str(self.file), self.chosen_set)
            place = f"{self.file}: {chosen.name}" if chosen.name else str(self.file)
            weights = stretched_as_published(chosen.weights, model, self.page)
            left = load_weights(model, weights, self.published_as or place)
        except EncoderError as error:
            raise EncoderError(f"{error}{way_from_file(self.file)}") from None
        if self.published_as:
            return "" if self.chosen_set else choice_note(str(self.file), chosen, others)
        note = self._note(chosen, others, parts_left_out(self.content, chosen, others, left))
        if resampled := resampled_positions(chosen.weights, model):
            return f"{note}; {resampled}" if note else f"note: {self.file}: {resampled}"
        return note

    def _note(self, chosen: WeightSet, others: Sequence[WeightSet], left: str) -> str:
        """What is said of a user's file."""
        names = names_note(chosen)
        if others and not self.chosen_set:
            sentences = (
                choice_note(str(self.file), chosen, others),
                names,
                f"Left out besides: {left}" if left else "",
            )
            return ". ".join(each for each in sentences if each)
        place = f"{self.file}{CHOICE}{self.chosen_set}" if self.chosen_set else str(self.file)
        taken = f"the encoder's weights are those under {chosen.name}" if chosen.name and not self.chosen_set else ""
        parts = "; ".join(part for part in (taken, names, f"left out are {left}" if left else "") if part)
        return f"note: {place}: {parts}" if parts else ""


def parts_left_out(
    content: dict[str, Any], chosen: WeightSet, others: Sequence[WeightSet], not_loaded: Sequence[str]
) -> str:
    """The parts of a file that belong to no set, and those of the chosen one that were not loaded, each with its
    tensors counted; "" if there are none.

    A part is the shortest name that leads to nothing of a set.
    """
    sets = [chosen, *others]
    held = {id(value) for each in sets for value in each.weights.values()}
    dot = f"{chosen.name}." if chosen.name else ""
    names = [WRAPPERS.sub("", name) for name, value in tensors_of(content) if id(value) not in held]
    names += [f"{dot}{name}" for name in not_loaded]
    ways = {each.name.rsplit(".", times)[0] for each in sets for times in range(each.name.count(".") + 1)}
    counts = Counter(_part(name, ways) for name in names)
    shown = [f"{part} ({num} tensor{'s' * (num > 1)})" for part, num in counts.most_common(MOST_PARTS)]
    further = sum(counts.values()) - sum(num for _, num in counts.most_common(MOST_PARTS))
    return ", ".join(shown) + (f" and {further} further tensors" if further else "")


def _part(name: str, ways: set[str]) -> str:
    """The shortest beginning of a name, between dots, that is no way to a set."""
    parts = name.split(".")
    return next((part for depth in range(1, len(parts)) if (part := ".".join(parts[:depth])) not in ways), name)
