"""Options of classes: quotas are read, refused by name, and the same choice is the same plan."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.config.class_rules import ClassRules, capitals_apart, clean_class, parse_quota
from pipeline.config.plan import PlanConfig


@pytest.mark.parametrize(
    ("text", "quota"), [("tumour=2", ("tumour", 2.0)), ("a=b=0.5", ("a=b", 0.5)), ("in  situ =1e2", ("in situ", 100.0))]
)
def test_a_quota_is_read(text: str, quota: tuple[str, float]) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize(
    "text", ["", "tumour", "tumour=", "=2", "\u00a0=2", "tumour=0", "tumour=-1", "tumour=nan", "tumour=inf"]
)
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
        ({"sample": "class", "class_quota": ["a=1", " a=2"]}, "gives a class two shares"),
        ({"include": [""]}, "include: a class without a name"),
        ({"exclude": [" \u00a0"]}, "exclude: a class without a name"),
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


def test_which_of_overlapping_classes_counts_is_said_by_plans_with_a_sample_by_class() -> None:
    assert "class_overlap" not in PlanConfig().record()
    by_class = PlanConfig.build({"sample": "class"})
    assert by_class.record()["class_overlap"] == by_class.deciding()["class_overlap"] == "smaller"
    assert by_class.sampling.classes.is_smaller_on_top
    earlier = PlanConfig.from_record({"sample": "class"})
    assert not earlier.sampling.classes.is_smaller_on_top
    assert "class_overlap" not in earlier.deciding()
    assert by_class.continuing(earlier).deciding() == earlier.deciding()
    said = PlanConfig.build({"sample": "class", "class_overlap": "smaller"})
    assert said.continuing(earlier).deciding() != earlier.deciding()
    most = PlanConfig.build({"sample": "class", "class_overlap": "most"})
    assert most.continuing(earlier).deciding() == earlier.deciding()  # it is the rule of the earlier plan
    assert most.continuing(by_class).deciding() != by_class.deciding()
    assert by_class.continuing(most).deciding() == most.deciding()
    with pytest.raises(ConfigError, match="class_overlap: is for --sample class"):
        PlanConfig.build({"class_overlap": "most"})


def test_each_class_is_known_by_its_option() -> None:
    rules = ClassRules(include=("a",), exclude=("b",), quotas=(("c", 1.0), ("a", 2.0)))
    assert rules.named == {"a": "--include", "b": "--exclude", "c": "--class-quota"}


SPELLINGS = (
    "Tum\u00f6r in situ",
    "Tumo\u0308r in situ",
    " Tum\u00f6r in situ",
    "Tum\u00f6r in situ\t",
    "Tum\u00f6r  in situ",
    "Tum\u00f6r\u00a0in\u2003situ",
    "Tum\u00f6r\nin situ",
    "\ufeffTum\u00f6r in\u200b situ",
)
"""One class, with accents in two encodings and with white space of all kinds."""


@pytest.mark.parametrize("written", SPELLINGS)
def test_a_class_has_one_clean_name(written: str) -> None:
    assert clean_class(written) == SPELLINGS[0]
    assert clean_class(written.upper()) == SPELLINGS[0].upper()  # capitals count


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=12))
def test_a_clean_name_is_clean_in_both_encodings(text: str) -> None:
    clean = clean_class(text)
    assert clean == clean_class(clean) == unicodedata.normalize("NFC", clean) == " ".join(clean.split())
    assert clean == clean_class(unicodedata.normalize("NFD", text)) == clean_class(f" {text}\u00a0")


@pytest.mark.parametrize("written", SPELLINGS)
def test_options_in_any_spelling_are_one_choice(written: str) -> None:
    """Each kind of option, and each class once."""
    names, quotas = [written, SPELLINGS[0]], [f"{written}=2"]
    config = PlanConfig.build({"include": names, "exclude": names, "sample": "class", "class_quota": quotas})
    clean = [SPELLINGS[0]]
    plain = {"include": clean, "exclude": clean, "sample": "class", "class_quota": [f"{SPELLINGS[0]}=2.0"]}
    assert config.record() == PlanConfig.build(plain).record()


OLD = {"include": ["a  b", "a b"], "exclude": ["c "], "sample": "class", "class_quota": ["a b=1.0", "a b =2.0"]}
"""Of an earlier version, to which these were several classes."""


def test_a_record_keeps_its_spellings_and_means_the_clean_names() -> None:
    old = PlanConfig.from_record(OLD)
    assert {name: old.record()[name] for name in OLD} == OLD
    rules = old.sampling.classes
    assert (rules.include, rules.exclude) == (("a b",), ("c",))
    with pytest.raises(ConfigError, match="is not CLASS=SHARE"):
        PlanConfig.from_record(OLD | {"class_quota": ["a b"]})


def test_the_same_options_continue_a_plan_with_other_spellings() -> None:
    old = PlanConfig.from_record(OLD | {"class_quota": ["a  b=1.0"]})
    again = PlanConfig.build({"include": ["a b"], "exclude": ["c"], "sample": "class", "class_quota": ["a b=1"]})
    assert again.continuing(old).deciding() == old.deciding()
    other = PlanConfig.build({"include": ["a b", "d"], "exclude": ["C"], "sample": "class", "class_quota": ["a b=2"]})
    continued = other.continuing(old)
    assert all(getattr(continued, name) == getattr(other, name) for name in OLD)


def test_a_class_that_only_capitals_set_apart_is_named() -> None:
    assert capitals_apart("tumor", ["Stroma", "Tumor", "TUMOR"]) == "; there is Tumor, TUMOR, and capitals count"
    assert capitals_apart("Tumor", ["Tumor"]) == capitals_apart("tumour", ["Tumor"]) == ""
