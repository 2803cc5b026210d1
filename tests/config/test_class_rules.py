"""Options of classes: quotas are read, refused by name, and the same choice is the same plan."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.class_rules import ClassRules, parse_quota
from pipeline.config.plan import PlanConfig


@pytest.mark.parametrize(
    ("text", "quota"), [("tumour=2", ("tumour", 2.0)), ("a=b=0.5", ("a=b", 0.5)), ("in situ =1e2", ("in situ ", 100.0))]
)
def test_a_quota_is_read(text: str, quota: tuple[str, float]) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize("text", ["", "tumour", "tumour=", "=2", "tumour=0", "tumour=-1", "tumour=nan", "tumour=inf"])
def test_a_wrong_quota_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not CLASS=SHARE"):
        parse_quota(text)
    with pytest.raises(ConfigError, match=r"class_quota: .*is not CLASS=SHARE"):
        PlanConfig.build({"sample": "class", "class_quota": [text]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_quota": ["a=1"]}, "class_quota: is for --sample class"),
        ({"sample": "class", "class_quota": ["a=1", "a=2"]}, "gives a class two shares"),
        ({"include": [""]}, "include: a class without a name"),
        ({"tissue_from": "t", "tissue_geojson": "t"}, "tissue_geojson: is the folder of --tissue-from"),
        ({"sample": "clas"}, "did you mean class"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PlanConfig.build(options)


def test_the_same_choice_is_the_same_plan() -> None:
    one = PlanConfig(include=["b", "a", "b"], sample="class", class_quota=["b=2", "a=1.0"])
    other = PlanConfig(include=["a", "b"], sample="class", class_quota=["a=1", "b=2.0"])
    assert one.deciding() == other.deciding()
    assert PlanConfig.from_record(one.record()).sampling == other.sampling


def test_what_earlier_versions_did_is_left_out_of_records() -> None:
    added = {"include", "exclude", "min_class", "max_excluded", "sample", "class_quota", "tissue_from"}
    assert not added & PlanConfig().record().keys()
    assert PlanConfig(tissue_from="t", tissue_geojson="g").deciding() == PlanConfig().deciding()  # their effect counts


def test_each_class_is_known_by_its_option() -> None:
    rules = ClassRules(include=("a",), exclude=("b",), quotas=(("c", 1.0), ("a", 2.0)))
    assert rules.named == {"a": "--include", "b": "--exclude", "c": "--class-quota"}
