"""A run's record names its teachers as records of earlier versions do, and gives them back alike."""

import json
from typing import Any

import pytest
from support.stores import make_store

from pipeline.base.versions import versions
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import departures_of_views
from pipeline.store.teachers import ChosenTeachers
from pipeline.training.identity import (
    RecordedTeacher,
    loss_weights,
    named_in_lines,
    random_start_differs,
    recipe_facts,
    recorded_departures,
    recorded_teachers,
    run_identity,
)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> ChosenTeachers:
    """Three teachers of unequal weights; stores of other rows stand for other embeddings."""
    folder = tmp_path_factory.mktemp("stores")
    stored = [make_store(folder / str(i), train=(4 + i,), val=(), rows_per_shard=8).first for i in range(3)]
    return ChosenTeachers(tuple(stored), (0.5, 0.125, 0.375))


def test_one_teacher_is_recorded_as_in_the_first_version(teachers: ChosenTeachers) -> None:
    one = ChosenTeachers(teachers.stored[:1], (1.0,))
    identity = run_identity(one, {"name": "s"}, {"lr": 0.1}, 2, version=1)
    assert list(identity) == ["store", "plan", "teacher", "student", "options", "world_size"]
    assert identity["store"] == one.first.content_hash()
    assert identity["teacher"] == one.first.record
    assert recorded_teachers(identity) == [RecordedTeacher(one.first.record, 1.0, one.first.content_hash())]
    assert loss_weights(identity) == {"": 1.0}


def test_several_teachers_are_given_back_in_their_order(teachers: ChosenTeachers) -> None:
    identity = run_identity(teachers, {}, {}, 1, start={"a": "1"})
    assert identity["versions"] == versions()
    assert list(identity)[-2:] == ["further_teachers", "start"]
    assert [list(each) for each in identity["further_teachers"]] == [["teacher", "weight", "content"]] * 2
    recorded = recorded_teachers(identity)
    assert [each.content for each in recorded] == [each.content_hash() for each in teachers.stored]
    assert [each.record for each in recorded] == [each.record for each in teachers.stored]
    assert tuple(each.weight for each in recorded) == teachers.weights


def test_weights_of_several_are_by_name() -> None:
    further = [{"teacher": {"name": "b"}, "weight": 0.25, "content": "2"}]
    identity = {"teacher": {"name": "a"}, "store": "1", "further_teachers": further}
    assert loss_weights(identity) == {"a": 0.75, "b": 0.25}


def test_a_recipe_is_recorded_with_the_departures_of_all_stages(teachers: ChosenTeachers) -> None:
    plan, views = PlanConfig(mpp=0.25), departures_of_views("paper", 4, "paper")
    facts = recipe_facts("paper", plan.model_dump(mode="json"), views, {"batch_size": 32, "epochs": 3})
    recorded = json.loads(json.dumps(facts))
    name, departed = recorded_departures(recorded) or ("", [])
    assert name == "paper"
    assert [each.words() for each in departed] == [
        "--tile-px not set, not 256",
        "--mpp 0.25, not 0.5",
        "--views 4, not 11",
        "--epochs 3, not 10",
    ]
    assert recorded_departures(run_identity(teachers, {}, {}, 1)) is None


def test_only_lines_of_several_teachers_name_them() -> None:
    assert named_in_lines(["a"]) == [{}]
    assert named_in_lines(["a", "b"]) == [{"teacher": "a"}, {"teacher": "b"}]


def test_a_random_start_may_differ_in_its_hash_alone() -> None:
    def identity(weights: str, sha256: str, name: str = "vit") -> dict[str, Any]:
        return {"student": {"name": name, "weights": weights, "weights_sha256": sha256}}

    begun = identity("scratch", "1")
    assert random_start_differs(begun, identity("scratch", "2"))
    for now in (begun, identity("scratch", "2", "cnn"), identity("w.pth", "2"), {}):
        assert not random_start_differs(begun, now)
    assert not random_start_differs(identity("w.pth", "1"), identity("w.pth", "2"))
