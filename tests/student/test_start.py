"""What a run starts from: published or random weights, a file, or a student with the projectors of its teachers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stores import plan_of_rows
from support.students import random_projector, seen_cases

from pipeline.base.errors import ConfigError
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.projector import Projector
from pipeline.report.content import AFTER
from pipeline.student import start as start_module
from pipeline.student.start import Start, continue_projector, find_start, projector_hash, seen_before
from pipeline.training.run_folder import RunFolder


@pytest.fixture
def named(student: Path) -> Path:
    """The student of two teachers, with the side of its input in `config.json`, as a run writes it."""
    config = json.loads((student / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 32, 32]
    (student / "config.json").write_text(json.dumps(config))
    return student


@pytest.mark.parametrize("weights", [PRETRAINED, SCRATCH, "weights.pth", "nowhere/model.safetensors"])
def test_words_and_files_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """Also where a folder has the name of a word."""
    monkeypatch.chdir(tmp_path)
    for word in (PRETRAINED, SCRATCH):
        (tmp_path / word / "run.json").mkdir(parents=True)
    assert find_start(weights) == Start(weights)
    assert Start(weights).projectors([("a", "1" * 64)]) == ({}, [])


def test_a_folder_that_is_no_student_is_the_encoder_s_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_start(str(tmp_path)) == Start(tmp_path)


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="this run is not finished and has no student yet; continue it first"):
        find_start(str(tmp_path))


def test_a_student_brings_the_projectors_of_teachers_that_it_knows(named: Path) -> None:
    start = find_start(str(named))
    assert start.weights == named
    assert start.student is not None
    assert (start.student.role, start.student.student) == (AFTER, named)
    known = {name: sha256 for name, sha256 in start.student.teachers.items() if name == "b/c"}
    found, notes = start.projectors([*known.items(), ("new", "f" * 64), ("unknown", "")])
    assert list(found) == ["b/c"]
    assert torch.equal(found["b/c"].linear.weight, start.student.projector("b/c").linear.weight)  # type: ignore[union-attr]
    assert [note.split(" starts anew: ")[0] for note in notes] == [
        f"note: the projector into the space of {name}" for name in ("new", "unknown")
    ]
    assert start.notes == ()


def test_a_folder_whose_projectors_are_gone_brings_its_weights_alone(named: Path) -> None:
    shutil.rmtree(named / "projector")
    (named / "student.json").unlink()
    start = find_start(str(named))
    assert (start.weights, start.student) == (named, None)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], ""),
        ([((16,), (16, 16, 16))], ""),  # the same plan
        ([((8,), (16, 16, 16))], ""),  # another one, which held out the same cases
        ([((16, 16, 16), (16,))], "2 of 3 held-out cases were trained on before, by a plan that --weights come from"),
        ([((8,), (16, 16)), ((16, 16), ())], "1 of 3 held-out cases were trained on before"),
        ([None], "they may have seen the held-out cases"),
        ([None, ((16, 16, 16, 16), ())], "3 of 3 held-out cases were trained on before"),
    ],
)
def test_held_out_cases_that_a_student_was_trained_on_before(
    monkeypatch: pytest.MonkeyPatch, before: list[tuple[tuple[int, ...], tuple[int, ...]] | None], words: str
) -> None:
    """`before` are rows of the slides that earlier plans trained on and held out; `None`: the plan is not at hand."""
    plans = [None if rows is None else plan_of_rows(*rows) for rows in before]
    trainings = [(plan.hash if plan else "f" * 64, plan) for plan in plans]
    monkeypatch.setattr(start_module, "_trainings", lambda start: iter(trainings))
    monkeypatch.setattr(start_module, "_plan_of", lambda run, plan_hash: run)
    seen = seen_before(Start("weights"), plan_of_rows((16,), (16, 16, 16))).words()
    assert seen.startswith(words) or (words and words in seen)
    assert bool(seen) == bool(words)
    assert seen_before(Start("weights"), plan_of_rows((16, 16), ())).words() == ""


def test_what_a_run_was_begun_from_and_is_gone(monkeypatch: pytest.MonkeyPatch, named: Path, tmp_path: Path) -> None:
    """A student that was trained on unknown cases is told from random weights and from a file."""
    folder = tmp_path / "run"
    shutil.copytree(named, folder / "student")
    (tmp_path / "typed").mkdir()
    shutil.copytree(named, tmp_path / "typed" / "kept")
    plan = plan_of_rows((16,), (16, 16))
    after = replace(find_start(str(named)).student, plan_hash=plan.hash)  # type: ignore[type-var]
    begun: dict[str, Any] = {}
    monkeypatch.setattr(RunFolder, "read_identity", lambda self: begun)
    for weights, start, is_told in (
        (SCRATCH, {}, False),
        (str(tmp_path / "gone.safetensors"), {}, False),
        (str(tmp_path / "gone"), {"a": "1" * 64}, True),
        (str(tmp_path / "typed" / "kept"), {"a": "1" * 64}, False),
        ("typed/kept", {"a": "1" * 64}, False),  # version 0.1.0 recorded it as typed
    ):
        begun = {"start": start} if start else {}
        (folder / "run.json").write_text("{}")
        (folder / "config.toml").write_text(f'["train-student"]\nweights = "{weights}"\nout = "run"\n')
        trainings = list(start_module._trainings(Start(str(folder), after)))
        assert ((start_module.UNKNOWN_PLAN, None) in trainings) == is_told, weights
        assert len(trainings) == 1 + bool(start)
        monkeypatch.setattr(start_module, "_plan_of", lambda run, plan_hash: plan)
        told = seen_before(Start(str(folder), after), plan).words()
        assert ("may have seen the held-out cases" in told) == bool(start)


def test_an_export_says_what_its_student_was_trained_on_before(named: Path) -> None:
    """Of its own plan: the runs before it are gone, or on another machine."""
    plan = plan_of_rows((16,), (16, 16))
    after = replace(find_start(str(named)).student, plan_hash=plan.hash)  # type: ignore[type-var]
    told = {}
    for before in (None, {"cases": 2, "shared": 1, "is_unknown": False}, {"cases": 2, "shared": 0, "is_unknown": True}):
        values = json.loads((named / "student.json").read_text())
        values["training"]["seen_before"] = before
        (named / "student.json").write_text(json.dumps(values))
        told[str(before)] = seen_before(Start(str(named), after), plan)
    assert list(told.values()) == [seen_cases(2), seen_cases(2, 1), seen_cases(2, 0, is_unknown=True)]


def test_a_projector_goes_on_with_its_map_and_the_student_s_statistics() -> None:
    """The teacher's statistics are of the new run's rows."""
    old, new = random_projector(3), Projector(3, 7)
    assert projector_hash(new) != projector_hash(old)
    own = {name: value.clone() for name, value in new.teacher_norm.state_dict().items()}
    continue_projector(new, old)
    assert projector_hash(new) == projector_hash(old)
    for part in ("linear", "student_norm"):
        for name, value in getattr(old, part).state_dict().items():
            assert torch.equal(getattr(new, part).state_dict()[name], value), name
    assert all(torch.equal(new.teacher_norm.state_dict()[name], value) for name, value in own.items())
    assert not torch.equal(old.teacher_norm.mean, new.teacher_norm.mean)
    assert new.linear.weight.requires_grad


def test_the_hash_is_of_the_map_alone() -> None:
    projector = random_projector(3)
    before = projector_hash(projector)
    projector.student_norm.mean.add_(1)
    assert projector_hash(projector) == before
    with torch.no_grad():
        projector.linear.bias[0] += 1e-3
    assert projector_hash(projector) != before


@pytest.mark.parametrize("width", [2, 4])
def test_a_map_between_other_widths_is_refused(width: int) -> None:
    new = Projector(width, 7)
    before = projector_hash(new)
    with pytest.raises(ConfigError, match=rf"its projector is of 7x3, this run needs 7x{width}; start from"):
        continue_projector(new, random_projector(3))
    assert projector_hash(new) == before
