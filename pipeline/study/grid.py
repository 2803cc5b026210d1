"""The settings of a study: which options are varied, the grid of their values, and the folder of each. Pure.

A setting is told from another by the options that differ from the base, so that a grid that is extended by a value or
an option keeps the folders of its finished runs. Options without effect in a setting, such as alpha under a loss that
takes none, are left at the base: settings that differ in nothing else are one. A recipe is varied as one option: it
stands for all that it sets in training.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.config.base import RECIPE
from pipeline.config.losses import LOSSES
from pipeline.config.recipes import recipe_values
from pipeline.config.stages import TrainConfig
from pipeline.disk.files import sha256_json

STORE = "store"
"""What `--vary` calls the store."""
BASE = "base"
"""Folder and label of the setting in which nothing differs from the base."""
LONGEST_LABEL = 48
"""Characters of a setting's folder; models of a report have labels of up to 60. Our choice."""
NOT_VARIED = {"seed": "give --seeds"}
"""Options that decide a run and are varied in another way."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """An option and the values that it takes, as texts."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A setting of the grid.

    Attributes:
        label: name of its folder, and of its students in reports.
        words: the values of the varied options by name, without those that have no effect.
        options: values of options of `train-student` that differ from the base.
        store: position of its store among those of the study.
    """

    label: str
    words: dict[str, str]
    options: dict[str, Any]
    store: int = 0

    @property
    def title(self) -> str:
        """Its name in tables and figures: the values of the varied options."""
        return _said(self.words)


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Parse `NAME=VALUE,VALUE` of each `--vary`.

    Raises:
        ConfigError: a text is of another form, or an option cannot be varied or is named twice.
    """
    axes: list[Axis] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        values = tuple(dict.fromkeys(value.strip() for value in rest.split(",")))
        if not equals or not all(values):
            raise ConfigError(f"--vary {text}: write NAME=VALUE,VALUE, such as loss=log-sum,mse")
        if name in {axis.name for axis in axes}:
            raise ConfigError(f"--vary {text}: {name} is varied twice. Give all its values in one --vary")
        _require_varied(text, name)
        axes.append(Axis(name, values))
    return axes


def _require_varied(text: str, name: str) -> None:
    """Check that an option can be varied.

    Raises:
        ConfigError: it is no option of a run, or changes none.
    """
    if name in (STORE, RECIPE):
        return
    if name not in TrainConfig.model_fields:
        hint = did_you_mean(name, [STORE, *TrainConfig.model_fields])
        raise ConfigError(f"--vary {text}: {name} is no option of train-student{hint}")
    if TrainConfig.says(name, "decides") == "nothing":
        raise ConfigError(f"--vary {text}: {name} changes no run. Give it once, as an option")
    if name in NOT_VARIED:
        raise ConfigError(f"--vary {text}: {name} is not varied; {NOT_VARIED[name]}")


def canonical_axes(axes: Sequence[Axis], base: Values) -> list[Axis]:
    """The axes with each value as it is written here, such as 0.001 for 1e-3, and each once.

    Raises:
        ConfigError: a value is wrong for its option, or a recipe is varied that the base names.
    """
    if RECIPE in base and RECIPE in {axis.name for axis in axes}:
        raise ConfigError("--vary recipe=...: leave out --recipe, which all settings would have")
    written = []
    for axis in axes:
        values = axis.values
        if axis.name != STORE:
            configs = [build_config(base, {axis.name: _value_of(axis.name, v)}, f"{axis.name}={v}") for v in values]
            values = tuple(dict.fromkeys(_text_of(getattr(config, axis.name)) for config in configs))
        written.append(Axis(axis.name, values))
    return written


def build_settings(base: Values, axes: Sequence[Axis], stores: Sequence[str]) -> list[Setting]:
    """All settings of the grid, the first axis slowest, each once.

    Args:
        base: values of the options that are not varied, as `TrainConfig.build` takes them.
        axes: what is varied, as `canonical_axes` gives it; an axis `STORE` has some of `stores` as values.
        stores: names of the stores; the first one is the base's.

    Raises:
        ConfigError: a value is wrong for its option.
    """
    settings: dict[str, Setting] = {}
    for values in itertools.product(*(axis.values for axis in axes)):
        words = dict(zip((axis.name for axis in axes), values, strict=True))
        store = words.get(STORE, stores[0])
        if store not in stores:
            raise ConfigError(f"--vary store: {store} is no store of this study; they are {', '.join(stores)}")
        setting = _setting_of(base, words, stores.index(store))
        settings.setdefault(setting.label, setting)
    return list(settings.values())


def _setting_of(base: Values, words: dict[str, str], store: int) -> Setting:
    """The setting of these values, without those that have no effect.

    A recipe is kept where it sets something. Then what other axes vary of its options tells the setting too, where it
    is the base's as well: the recipe would set another value.

    Raises:
        ConfigError: a value is wrong for its option.
    """
    of_recipe = recipe_values(words.get(RECIPE), "train-student")
    kept, idle = _differing(base, words, of_recipe)
    words = {name: text for name, text in words.items() if name not in idle}
    if kept.keys() & of_recipe.keys() - words.keys():
        kept[RECIPE] = words[RECIPE]
    telling = kept.keys() | of_recipe.keys() | ({STORE} if store else set())
    return Setting(label_of({name: words[name] for name in words if name in telling}), words, kept, store)


def _differing(base: Values, words: Mapping[str, str], of_recipe: Values) -> tuple[dict[str, Any], set[str]]:
    """The options that differ from the base; and those without effect, which are not among them.

    What the base gives or another axis varies wins over a recipe, as flags do. An augmentation that is asked for always
    differs from a base that leaves it to the store (`TrainConfig.for_views`).

    Raises:
        ConfigError: a value is wrong for its option.
    """
    options = {name: _value_of(name, text) for name, text in words.items() if name not in (STORE, RECIPE)}
    options = {name: value for name, value in of_recipe.items() if name not in base} | options
    config, plain = build_config(base, options, _said(words)), build_config(base, {}, "the base")
    idle = idle_options(config) & words.keys()  # what a recipe sets is kept: the run is compared with the recipe
    implied = {"augment"} - plain.model_fields_set
    differing = {name: getattr(config, name) for name in options if name not in idle}
    return {name: v for name, v in differing.items() if v != getattr(plain, name) or name in implied}, idle


def with_given_only(record: Values, base: Values, axes: Sequence[Axis]) -> dict[str, Any]:
    """A record of a study that has, of the options that varied recipes set, those that the base gives and no others.

    Read again, a default would count as given and win over the recipe; and records leave out some that are given.
    """
    recipes = [value for axis in axes if axis.name == RECIPE for value in axis.values]
    of_recipes = {name for recipe in recipes for name in recipe_values(recipe, "train-student")}
    given = {name: base[name] for name in sorted(of_recipes) if name in base}
    return {name: value for name, value in record.items() if name not in of_recipes} | given


def build_config(base: Values, options: Values, said: str) -> TrainConfig:
    """The options of a run.

    Raises:
        ConfigError: a value is wrong; the error says for which setting.
    """
    try:
        return TrainConfig.build({**base, **options})
    except ConfigError as error:
        raise ConfigError(f"{said}: {error}") from None


def idle_options(config: TrainConfig) -> set[str]:
    """Options that have no effect beside the others of a run."""
    of_loss = set() if LOSSES[config.loss].takes_alpha else {"alpha"}
    of_stop = {"early_stop_window", "early_stop_patience"} if config.early_stop == "off" else set()
    return of_loss | of_stop | (set() if config.weight_decay else {"weight_decay_schedule"})


def _value_of(name: str, text: str) -> Any:
    """A value as `TrainConfig.build` takes it: a list for an option of lists; `none` is an optional one that is off."""
    annotation = str(TrainConfig.model_fields[name].annotation)
    if text == "none" and "None" in annotation:
        return None
    return text.split("+") if "list[" in annotation else text


def _text_of(value: Any) -> str:
    """A value as a text that `_value_of` reads back."""
    if isinstance(value, list):
        return "+".join(map(_text_of, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        short = f"{value:g}"  # as folders have long been named, where it keeps all digits
        return short if float(short) == value else repr(value).removesuffix(".0")
    return "none" if value is None else str(value)


def _said(words: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in words.items()) or BASE


def label_of(words: Mapping[str, str]) -> str:
    """Name of a setting's folder: such as `loss-mse_lr-0.001`; shortened, or changed to plain characters, it ends with
    a hash, so that no two settings share one.
    """
    if not words:
        return BASE
    text = "_".join(f"{name}-{words[name]}" for name in sorted(words))
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", text)
    if plain == text and len(text) <= LONGEST_LABEL:
        return text
    return f"{plain[: LONGEST_LABEL - 9]}-{sha256_json(dict(words))[:8]}"


def find_reference(settings: Sequence[Setting], axes: Sequence[Axis], text: str | None, base: Values) -> Setting:
    """The setting to compare with: that of `NAME=VALUE,NAME=VALUE`, where what is not named has the first value of its
    axis. A value may be spelled as `--vary` may spell it, such as 1e-3 for 0.001.

    Raises:
        ConfigError: a name or value is not of the grid.
    """
    wanted = {axis.name: axis.values[0] for axis in axes}
    for part in text.split(",") if text else ():
        named = _named_value(part, axes, base)
        if named is None:
            grid = "; ".join(f"{each.name}={','.join(each.values)}" for each in axes)
            raise ConfigError(f"--reference {text}: {part} is not of the grid, {grid}")
        wanted |= named
    return next(setting for setting in settings if all(wanted[name] == value for name, value in setting.words.items()))


def _named_value(part: str, axes: Sequence[Axis], base: Values) -> dict[str, str] | None:
    """The value of an axis that `NAME=VALUE` names, as it is written in the grid; `None` if it is not of it."""
    name, _, value = (word.strip() for word in part.partition("="))
    axis = next((axis for axis in axes if axis.name == name.replace("-", "_")), None)
    if axis is None:
        return None
    if value not in axis.values:
        value = _as_written(axis, value, base)
    return {axis.name: value} if value in axis.values else None


def _as_written(axis: Axis, value: str, base: Values) -> str:
    """A value as `canonical_axes` writes it, a store by its name; as it is if its option does not take it."""
    if axis.name == STORE:
        return value.rstrip("/").rpartition("/")[2]
    try:
        (written,) = canonical_axes([Axis(axis.name, (value,))], base)
    except ConfigError:
        return value
    return written.values[0]
