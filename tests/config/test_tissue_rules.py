"""Rules by name: which are on, and that a plan of an earlier version runs those that it knew."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import (
    ARTEFACT_RULES,
    EARLIER_RULES,
    LATER_RULES,
    MAX_ARTEFACT,
    OPTIONAL_RULES,
    RULE_NAMES,
    RULE_WORDS,
    in_rule_order,
    rules_in_use,
)


def test_every_rule_has_its_words_in_order() -> None:
    assert tuple(RULE_WORDS) == RULE_NAMES
    assert {*EARLIER_RULES, *LATER_RULES, *OPTIONAL_RULES} == set(RULE_NAMES)
    assert EARLIER_RULES == ("dark", "specks")


def test_rules_are_turned_off_and_on() -> None:
    assert rules_in_use([], []) == tuple(name for name in RULE_NAMES if RULE_WORDS[name].is_on)
    assert rules_in_use(LATER_RULES, []) == EARLIER_RULES
    assert rules_in_use([], OPTIONAL_RULES) == RULE_NAMES
    assert in_rule_order(["specks", "border", "specks"]) == ["border", "specks"]


def test_a_plan_of_an_earlier_version_has_the_earlier_rules() -> None:
    """Its record names none; that of today says so."""
    earlier = PlanConfig.from_record({"seed": 1})
    assert earlier.rules == EARLIER_RULES
    assert not {"skip_rule", "use_rule", "max_artefact"} & (earlier.record().keys() | earlier.deciding().keys())
    alike = {"skip_rule": LATER_RULES, "resampling": "lanczos-pillow", "max_artefact": 1}
    assert PlanConfig.build({"seed": 1} | alike).hash() == earlier.hash()
    now = PlanConfig(seed=1)
    assert now.record()["max_artefact"] == now.deciding()["max_artefact"] == MAX_ARTEFACT
    assert earlier.grid.max_artefact == 1
    assert now.record()["skip_rule"] == []
    assert PlanConfig.from_record(now.record()) == now
    assert now.stored()["skip_rule"] == []  # for --config, which fills in no earlier value
    assert earlier.stored()["skip_rule"] == LATER_RULES


def test_the_same_choice_is_the_same_plan() -> None:
    one, other = (PlanConfig(skip_rule=names) for names in (["specks", "dark"], ["dark", "specks", "dark"]))
    assert one.hash() == other.hash() != PlanConfig().hash()
    assert PlanConfig(use_rule=OPTIONAL_RULES).rules == RULE_NAMES


def test_a_call_goes_on_with_the_rules_of_its_plan() -> None:
    earlier, now = PlanConfig.from_record({}), PlanConfig(workers=2)
    assert now.continuing(earlier).rules == EARLIER_RULES
    assert now.continuing(earlier).workers == 2
    assert now.continuing(PlanConfig()).rules == rules_in_use([], [])
    assert PlanConfig(skip_rule=["haze"]).continuing(earlier).rules == rules_in_use(["haze"], [])
    assert now.continuing(earlier).max_artefact == 1
    assert PlanConfig(max_artefact=0.3).continuing(earlier).max_artefact == 0.3


def test_artefacts_are_rules_of_the_finder_that_lie_over_tissue() -> None:
    assert set(ARTEFACT_RULES) <= set(RULE_NAMES)
    assert not set(ARTEFACT_RULES) & {*EARLIER_RULES, "fat"}
    assert 0 < MAX_ARTEFACT < 0.5


def test_wrong_rules_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"skip_rule: .*got 'hase'.*did you mean.*haze"):
        PlanConfig.build({"skip_rule": ["hase"]})
    with pytest.raises(ConfigError, match="use_rule: --skip-rule turns haze off; leave out one"):
        PlanConfig.build({"skip_rule": ["haze"], "use_rule": ["haze"]})
