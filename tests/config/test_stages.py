"""Options of the two stages: their bounds, and what may change when a run is continued."""

from pathlib import Path
from typing import Any

import pytest
from support.options import assert_refused
from support.stores import make_store, plain_vit, train_config

from pipeline.base.errors import ConfigError
from pipeline.config.base import Config
from pipeline.config.stages import ExportConfig, ExtractConfig, TrainConfig, VerifyConfig
from pipeline.store.teachers import choose_teachers
from pipeline.training.identity import run_identity

OTHER_VALUES: dict[str, Any] = {
    "recipe": "paper",
    "weights": "w.pt",
    "teacher": ["other"],
    "teacher_weight": [1.0],
    "train_slides": 2,
    "train_patches_per_slide": 3,
    "epochs": 7,
    "batch_size": 24,
    "lr": 0.5,
    "final_lr": 0.0,
    "weight_decay": 0.5,
    "weight_decay_schedule": "cosine",
    "warmup": 0.5,
    "clip": 0.0,
    "early_stop": "total",
    "early_stop_window": 50,
    "early_stop_patience": 3,
    "loss": "mse",
    "alpha": 2.0,
    "augment": "none",
    "use_plain_view": False,
    "views_per_epoch": "fresh",
    "checkpoint_every": 77,
    "keep": "best",
    "val_every": 3,
    "val_rows": 99,
    "device": "mps",
    "precision": "bfloat16",
    "micro_batch": 3,
    "compile": True,
    "shard_student": True,
    "workers": 5,
    "deterministic": False,
    "slides_root": Path("elsewhere"),
    "stage_dir": Path("scratch"),
    "stage_gb": 1.0,
    "log": ["mlflow"],
    "seed": 9,
}
"""Of TrainConfig, beside the student."""


def test_the_examples_are_all_options_of_training() -> None:
    assert OTHER_VALUES.keys() == TrainConfig.model_fields.keys() - {"student"}
    assert all(TrainConfig.model_fields[name].default != value for name, value in OTHER_VALUES.items())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_run_is_continued_under_the_values_that_decide(name: str, tmp_path: Path) -> None:
    teachers = choose_teachers(make_store(tmp_path / "store.zarr"), None, None)
    student = plain_vit(tmp_path / "vit")
    before = train_config(student, weights="scratch")
    after = before.model_copy(update={name: OTHER_VALUES[name]})
    identities = [
        run_identity(teachers, {}, config.deciding() | {"precision": "float32"}, 1) for config in (before, after)
    ]
    decides = TrainConfig.says(name, "decides") == "value" and name != "precision"  # what it came to stands there
    assert (identities[0] != identities[1]) == decides


@pytest.mark.parametrize(
    ("asked", "num_views", "expected"),
    [
        ({}, 1, "flips"),
        ({}, 4, "none"),
        ({"augment": "flips"}, 4, "flips"),  # the default's name, but asked for
        ({"augment": "flips+jitter"}, 4, "flips+jitter"),
        ({"augment": "none"}, 1, "none"),
    ],
)
def test_only_the_default_gives_way_to_views(asked: dict[str, str], num_views: int, expected: str) -> None:
    config = TrainConfig.build({"student": "s", "seed": 3, **asked})
    resolved = config.for_views(num_views)
    assert resolved.augment == expected
    assert resolved.model_copy(update={"augment": config.augment}) == config  # nothing else changes
    assert resolved.for_views(num_views).augment == expected


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        (ExtractConfig, {"teacher": "t", "views_strength": "papr"}, r"did you mean paper\?"),
        (ExtractConfig, {}, "teacher: missing; it must be given"),
        (ExtractConfig, {"teacher": "t", "pixels": "jpg"}, r"got 'jpg'\) \(did you mean jpeg\?"),
        (ExtractConfig, {"teacher": "t", "views": 5000}, "views: "),
        (TrainConfig, {"student": "s", "batch_size": 1}, "batch_size: "),  # a batch of one has no statistics
        (TrainConfig, {"student": "s", "micro_batch": 0}, "micro_batch: "),
        (TrainConfig, {"student": "s", "alpha": 0.5}, "alpha: "),
        (TrainConfig, {"student": "s", "lr": 0}, "lr: "),
        (TrainConfig, {"student": "s", "warmup": 1}, "warmup: "),
        (TrainConfig, {"student": "s", "clip": -1}, "clip: "),
        (TrainConfig, {"student": "s", "final_lr": 1.1}, "final_lr: "),
        (TrainConfig, {"student": "s", "weight_decay_schedule": "cosin"}, r"did you mean cosine\?"),
        (TrainConfig, {"student": "s", "early_stop": "yes"}, "early_stop: "),
        (TrainConfig, {"student": "s", "early_stop_window": 0}, "early_stop_window: "),
        (TrainConfig, {"student": "s", "early_stop_patience": -1}, "early_stop_patience: "),
        (TrainConfig, {"student": "s", "recipe": "papers"}, r"did you mean paper\?"),
        (TrainConfig, {"student": "s", "precision": "float16"}, "precision: "),
        (TrainConfig, {"student": "s", "epoch": 3}, r"did you mean epochs\?"),
        (ExportConfig, {"format": ["onxx"]}, r"did you mean onnx\?"),
        (VerifyConfig, {"sample": -1}, "sample: "),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(config: type[Config], values: dict[str, Any], words: str) -> None:
    assert_refused(config, values, words)


@pytest.mark.parametrize(
    ("weights", "recorded"), [("pretrained", "pretrained"), ("scratch", "scratch"), ("w.pt", "{here}/w.pt")]
)
def test_weights_in_a_file_are_recorded_by_their_absolute_path(
    weights: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(student="s", weights=weights, slides_root=Path("slides")).absolute()
    assert config.weights == recorded.format(here=tmp_path)
    assert config.slides_root == tmp_path / "slides"


def test_a_record_without_views_is_that_of_versions_that_knew_none() -> None:
    assert "views_strength" not in ExtractConfig(teacher="t").record()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("wandbb", "log: Input should be 'wandb' or 'mlflow'.*wandbb"),
        ("tensorboard", "log: .*TensorBoard's files are no service, and need no --log"),
    ],
)
def test_a_service_that_is_none_is_refused_with_those_that_are(word: str, said: str) -> None:
    """TensorBoard's files need no `--log`; the help says so at the option."""
    with pytest.raises(ConfigError, match=said):
        TrainConfig.build({"student": "hibou-l", "log": [word]})
    assert "TensorBoard's files, which need no --log" in str(TrainConfig.model_fields["log"].description)
