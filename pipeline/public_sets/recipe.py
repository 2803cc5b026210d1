"""Recipes of public sets, `data_manifests/benchmarks/NAME.toml`: what a set is, how to get, read and score it.

A recipe may have variants, such as magnifications: sets of their own name that differ in a few of its entries. Sets
that are known but not read, and why, stand in `left_out.toml` beside the recipes.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, resources
from typing import Any, Literal

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.public_sets.members import Reader
from pipeline.public_sets.whole import PublishedCounts

FOLDER = ("data", "benchmarks")
"""Of the package `pipeline`; `data_manifests/benchmarks` is a link to it."""
LEFT_OUT = "left_out.toml"
READERS = "pipeline.public_sets.readers"
DEFAULT_PROTOCOL = "g2l"
"""The protocol of `g2l evaluate` that needs no option."""


@dataclass(frozen=True)
class MetricOfSet:
    """A metric by which a set is compared.

    Attributes:
        name: one of `measured.MEASURED`.
        tolerance: by how much our value may differ from a published one, in the metric's units.
        why: what the tolerance allows for.
        differs: why published values cannot be compared with ours at all; "" if they can.
        reference: published name of the model that it must be measured against; "" where it is against none.
    """

    name: str
    tolerance: float
    why: str
    differs: str = ""
    reference: str = ""


@dataclass(frozen=True)
class SetRecipe:
    """One set.

    Attributes:
        name: as on the command line.
        title: in a few words, with the size.
        about: what it is.
        url: where it is published.
        terms: under which terms.
        how: how to get it, and what --root must hold.
        citation: the publication.
        reader: module of `READERS`.
        reader_options: for the reader.
        benchmark: the benchmark of `g2l evaluate` that scores it.
        protocol: named protocol of `g2l evaluate`.
        options: further options of `g2l evaluate`.
        metrics: what is compared.
        counts: how many members the set has; `None` where no source that we saw says so.
        variant_of: name of the set whose recipe this one changes; "" if it has its own.
    """

    name: str
    title: str
    about: str
    url: str
    terms: str
    how: str
    citation: str
    reader: str
    benchmark: Literal["patches", "robustness", "slides"]
    metrics: tuple[MetricOfSet, ...]
    protocol: str = DEFAULT_PROTOCOL
    reader_options: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: PublishedCounts | None = None
    variant_of: str = ""

    def load_reader(self) -> Reader:
        """The function that reads the set's folder."""
        reader: Reader = import_module(f"{READERS}.{self.reader}").read_members
        return reader


@cache
def set_recipes() -> Mapping[str, SetRecipe]:
    """All sets that can be reproduced, variants included, by name."""
    found: dict[str, SetRecipe] = {}
    for name in _file_names():
        if name != LEFT_OUT:
            entries = _parsed(name)
            variants = entries.pop("variants", {})
            own = name.removesuffix(".toml")
            found[own] = _recipe(own, entries)
            for variant, changes in variants.items():
                merged = entries | {"counts": None} | changes  # another set: never the counts of the first
                merged["reader_options"] = entries.get("reader_options", {}) | changes.get("reader_options", {})
                found[variant] = _recipe(variant, merged | {"variant_of": own})
    return dict(sorted(found.items()))


@cache
def left_out_sets() -> Mapping[str, str]:
    """Sets that are known but not read, and why, by name."""
    return {name: str(entry["why"]) for name, entry in _parsed(LEFT_OUT).items()}


def find_recipe(name: str) -> SetRecipe:
    """The recipe of a set; its name may be written in capitals.

    Raises:
        ConfigError: there is none; says why, if the set is known.
    """
    known = name.lower()
    if known in set_recipes():
        return set_recipes()[known]
    if known in left_out_sets():
        raise ConfigError(f"{known} cannot be reproduced: {left_out_sets()[known]}")
    raise ConfigError(
        f"{name}: no such public set{did_you_mean(known, set_recipes())}; the sets are {', '.join(set_recipes())}. "
        "g2l reproduce --list describes them"
    )


def _file_names() -> list[str]:
    """The recipes' files, in the order of their names."""
    folder = resources.files("pipeline").joinpath(*FOLDER)
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _parsed(name: str) -> dict[str, Any]:
    """One of the package's own files."""
    return tomllib.loads(resources.files("pipeline").joinpath(*FOLDER, name).read_text("utf-8"))


def _recipe(name: str, entries: Mapping[str, Any]) -> SetRecipe:
    """A recipe of its entries; those that span lines become one line."""
    values = {key: " ".join(v.split()) if isinstance(v, str) and key != "how" else v for key, v in entries.items()}
    metrics = tuple(MetricOfSet(**metric) for metric in entries["metrics"])
    counts = PublishedCounts(**entries["counts"]) if entries.get("counts") else None
    return SetRecipe(name=name, **{**values, "how": entries["how"].strip(), "metrics": metrics, "counts": counts})
