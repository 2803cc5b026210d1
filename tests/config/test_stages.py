"""Options of the two stages: their bounds, and what may change when a run is continued."""

from pathlib import Path
from typing import Any

import pytest
from support.stores import make_store, plain_vit, train_config

from pipeline.config.stages import TrainConfig
from pipeline.training.run_folder import run_identity

OTHER_VALUES: dict[str, Any] = {
    "weights": "w.pt", "teacher": ["other"], "teacher_weight": [1.0], "epochs": 7, "batch_size": 24, "lr": 0.5,
    "weight_decay": 0.5, "warmup": 0.5, "clip": 5.0, "loss": "mse", "alpha": 2.0, "augment": "none",
    "checkpoint_every": 77, "keep": "best", "val_every": 3, "val_rows": 99, "device": "mps", "precision": "bfloat16",
    "workers": 5, "deterministic": False, "slides_root": Path("elsewhere"), "seed": 9,
}  # fmt: skip
"""Of TrainConfig, beside the student."""


def test_the_examples_are_all_options_of_training() -> None:
    assert OTHER_VALUES.keys() == TrainConfig.model_fields.keys() - {"student"}
    assert all(TrainConfig.model_fields[name].default != value for name, value in OTHER_VALUES.items())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_run_is_continued_under_the_values_that_decide(name: str, tmp_path: Path) -> None:
    teacher, student = make_store(tmp_path / "store.zarr").first, plain_vit(tmp_path / "vit")
    before = train_config(student, weights="scratch")
    after = before.model_copy(update={name: OTHER_VALUES[name]})
    identities = [run_identity(teacher, {}, config, "float32", 1) for config in (before, after)]
    decides = TrainConfig.says(name, "decides") == "value" and name != "precision"  # what it came to stands there
    assert (identities[0] != identities[1]) == decides
