"""The grid of an ablation: every setting once, options without effect left out, folders that stay when it grows."""

import itertools
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.recipes import recipe_values, with_recipe
from pipeline.config.stages import TrainConfig
from pipeline.study.grid import (
    BASE,
    Axis,
    Setting,
    build_config,
    build_settings,
    canonical_axes,
    find_reference,
    idle_options,
    label_of,
    parse_axes,
    with_given_only,
)

BASE_VALUES = {"student": "s", "epochs": 3}


def settings_of(*vary: str, stores: tuple[str, ...] = ("a.zarr",), **base: Any) -> list[Setting]:
    values = BASE_VALUES | base
    return build_settings(values, canonical_axes(parse_axes(vary), values), stores)


def test_a_grid_is_the_product_of_its_axes_without_idle_ones() -> None:
    settings = settings_of("loss=log-sum,mse", "alpha=2,4", "lr=1e-3,1e-4")
    words = [tuple(setting.words.items()) for setting in settings]
    expected = []
    for loss, alpha, lr in itertools.product(("log-sum", "mse"), ("2", "4"), ("0.001", "0.0001")):
        entry = [("loss", loss), *([("alpha", alpha)] if loss == "log-sum" else []), ("lr", lr)]
        expected += [tuple(entry)] * (tuple(entry) not in expected)
    assert words == expected
    assert len({setting.label for setting in settings}) == len(settings) == 6


def test_a_setting_is_what_training_gets() -> None:
    for setting in settings_of("loss=log-sum,mse", "alpha=2,4", "train_slides=none,3"):
        config = build_config(BASE_VALUES, setting.options, setting.title)
        for name, text in setting.words.items():
            value = getattr(config, name)
            assert text == ("none" if value is None else f"{value:g}" if isinstance(value, float) else str(value))
        assert not idle_options(config) & setting.words.keys()


def test_folders_stay_when_a_grid_is_extended() -> None:
    small = {s.label: s.options for s in settings_of("loss=log-sum,mse")}
    large = {s.label: s.options for s in settings_of("loss=log-sum,mse,cosine", "alpha=4,2", "epochs=3,5")}
    assert small.items() <= large.items()
    assert small == {BASE: {}, "loss-mse": {"loss": "mse"}}


def test_one_value_in_two_spellings_is_one_setting() -> None:
    assert [s.words["lr"] for s in settings_of("lr=1e-3,0.001,0.0010,2e-3")] == ["0.001", "0.002"]
    assert [s.words["deterministic"] for s in settings_of("deterministic=true,yes,no")] == ["true", "false"]


def test_large_values_keep_all_their_digits() -> None:
    large = settings_of("alpha=1234567,1234568,12345678901234567890")
    assert [s.words["alpha"] for s in large] == ["1234567", "1234568", "1.2345678901234567e+19"]
    assert len({s.label for s in large}) == len({s.options["alpha"] for s in large}) == 3
    ordinary = settings_of("alpha=2,100000,1000000,3e7,2.5")
    assert [s.words["alpha"] for s in ordinary] == ["2", "100000", "1e+06", "3e+07", "2.5"]


def test_the_augmentation_that_the_store_decides_differs_from_one_that_is_asked_for() -> None:
    """A store with views gets none unless it is asked for: "flips" must reach training."""
    assert [s.options for s in settings_of("augment=flips,none")] == [{"augment": "flips"}, {"augment": "none"}]
    assert settings_of("augment=flips,none", augment="flips")[0].options == {}


def test_lists_are_joined_by_plus() -> None:
    (one, two) = settings_of("teacher=a,a+b")
    assert (one.options, two.options) == ({"teacher": ["a"]}, {"teacher": ["a", "b"]})


def test_a_recipe_is_varied_as_all_that_it_sets() -> None:
    """What the base gives and other axes vary wins over it, as flags do."""
    default, paper = settings_of("recipe=default,paper", epochs=3)
    assert (default.label, default.options, default.title) == (BASE, {}, "recipe=default")
    values = with_recipe(TrainConfig, BASE_VALUES | {"recipe": "paper"}, "train-student")
    trained = build_config(BASE_VALUES, paper.options, paper.title)
    assert (paper.label, paper.title) == ("recipe-paper", "recipe=paper")
    assert trained == values
    assert "epochs" not in paper.options
    (_, given) = settings_of("recipe=default,paper", batch_size=256)
    assert build_config(BASE_VALUES | {"batch_size": 256}, given.options, "").batch_size == 256
    crossed = settings_of("recipe=paper", "batch_size=256,32", "loss=log-sum,mse")
    assert len({each.label for each in crossed}) == 4
    assert paper.label not in {each.label for each in crossed if each.words["batch_size"] == "256"}
    for each in crossed:
        config = build_config(BASE_VALUES, each.options, each.title)
        assert (str(config.batch_size), config.loss) == (each.words["batch_size"], each.words["loss"])
        assert (config.early_stop, config.clip, config.recipe) == ("consecutive", 0.0, "paper")


def test_a_record_of_varied_recipes_gives_the_same_settings() -> None:
    """Though it has the values of all other options."""
    base = {**BASE_VALUES, "lr": 1e-3, "use_plain_view": True, "clip": 1.0}
    axes = canonical_axes(parse_axes(["recipe=default,paper"]), base)
    read = with_given_only({"out": "o", **TrainConfig.build(base).record()}, base, axes)
    again = {name: value for name, value in read.items() if name in TrainConfig.model_fields}
    assert read.keys() > {"out", "lr", "student", "keep", "use_plain_view", "clip"}
    assert build_settings(again, axes, ["a"]) == build_settings(base, axes, ["a"])
    plain = canonical_axes(parse_axes(["loss=mse,cosine"]), base)
    assert with_given_only({"clip": 1.0}, base, plain) == {"clip": 1.0}


def test_a_recipe_that_all_settings_have_is_not_varied() -> None:
    with pytest.raises(ConfigError, match="leave out --recipe"):
        settings_of("recipe=default,paper", recipe="paper")
    assert settings_of("loss=mse,cosine", recipe="paper")[0].options == {"loss": "mse"}


def test_stores_are_an_axis() -> None:
    stores = ("flips.zarr", "paper.zarr")
    settings = settings_of("store=flips.zarr,paper.zarr", "loss=mse,cosine", stores=stores)
    assert [(s.store, s.options["loss"]) for s in settings] == [(0, "mse"), (0, "cosine"), (1, "mse"), (1, "cosine")]
    assert settings[2].label == "loss-mse_store-paper.zarr"


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["los=mse"], "los is no option of train-student .did you mean loss"),
        (["loss=mse,msee"], "did you mean mse"),
        (["alpha=0.5"], "alpha"),
        (["recipe=default,papr"], "did you mean paper"),
        (["workers=1,2"], "workers changes no run"),
        (["seed=1,2"], "give --seeds"),
        (["loss"], "write NAME=VALUE"),
        (["loss=mse,"], "write NAME=VALUE"),
        (["loss=mse", "loss=cosine"], "varied twice"),
        (["store=other.zarr"], "other.zarr is no store"),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(vary: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of(*vary)


def test_labels_are_plain_and_of_one_setting_each() -> None:
    texts = ["/data/my weights.pt", "/data/my-weights.pt", "x" * 90, "x" * 91, "ä"]
    labels = [label_of({"weights": text}) for text in texts]
    assert len(set(labels)) == len(texts)
    assert all(len(label) <= 48 and label.isascii() and "/" not in label for label in labels)


def test_the_reference_has_the_first_values_but_where_it_is_named() -> None:
    axes = canonical_axes(parse_axes(["loss=mse,log-sum", "alpha=2,4", "epochs=3,1"]), BASE_VALUES)
    settings = build_settings(BASE_VALUES, axes, ["a"])
    assert find_reference(settings, axes, None, BASE_VALUES).title == "loss=mse epochs=3"
    assert find_reference(settings, axes, "loss=log-sum, alpha=4", BASE_VALUES).title == "loss=log-sum alpha=4 epochs=3"
    for wrong in ("loss=cosine", "lr=1"):
        with pytest.raises(ConfigError, match="is not of the grid, loss=mse,log-sum; alpha=2,4"):
            find_reference(settings, axes, wrong, BASE_VALUES)


def test_the_reference_s_values_are_spelled_as_those_of_the_grid() -> None:
    """`--vary lr=1e-3,1e-4 --reference lr=1e-4` was refused, as the grid has 0.001 and 0.0001."""
    axes = [*canonical_axes(parse_axes(["lr=1e-3,1e-4"]), BASE_VALUES), Axis("store", ("a", "b"))]
    settings = build_settings(BASE_VALUES, axes, ["a", "b"])
    assert find_reference(settings, axes, "lr=1e-4", BASE_VALUES).title == "lr=0.0001 store=a"
    assert find_reference(settings, axes, "lr=.0001,store=data/b", BASE_VALUES).title == "lr=0.0001 store=b"
    with pytest.raises(ConfigError, match=r"lr=fast is not of the grid, lr=0\.001,0\.0001"):
        find_reference(settings, axes, "lr=fast", BASE_VALUES)


def test_alpha_alone_is_idle_and_only_where_the_loss_takes_none() -> None:
    others = {"early_stop": "consecutive", "weight_decay": 0.1}
    assert idle_options(TrainConfig(student="s", loss="mse", **others)) == {"alpha"}
    assert idle_options(TrainConfig(student="s", loss="log-sum", **others)) == set()


def test_options_of_what_is_off_are_not_repeated() -> None:
    """Runs that were the same but for their names were trained, and compared."""
    settings = settings_of("early_stop=off,total", "early_stop_window=50,100")
    assert [s.title for s in settings] == [
        "early_stop=off",
        "early_stop=total early_stop_window=50",
        "early_stop=total early_stop_window=100",
    ]
    decays = settings_of("weight_decay=0,0.05", "weight_decay_schedule=constant,cosine")
    assert decays[0].title == "weight_decay=0"
    assert len(decays) == 3


def test_what_a_recipe_sets_is_kept_where_it_is_idle() -> None:
    """A run's record is compared with the recipe, and the runs of earlier versions have it."""
    (_, paper) = settings_of("recipe=default,paper", weight_decay=0)
    schedule = recipe_values("paper", "train-student")["weight_decay_schedule"]
    assert paper.options["weight_decay_schedule"] == schedule != BASE_VALUES.get("weight_decay_schedule")
    (*_, crossed) = settings_of("recipe=default,paper", "weight_decay=0.1,0")
    assert crossed.options["weight_decay_schedule"] == schedule


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_value_that_is_not_finite_is_refused_by_name(value: str) -> None:
    with pytest.raises(ConfigError, match="lr: Input should be a finite number"):
        settings_of(f"lr={value},0.001")
