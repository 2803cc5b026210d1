"""Tables of an ablation say what is shown and what is not, and of which."""

import itertools
from dataclasses import replace

import numpy as np

from pipeline.study.compare import Estimate, Scores, compare_settings, estimate_score, not_shown_lower
from pipeline.study.grid import Setting
from pipeline.study.tables import ScoreTable, conclusion, pair_records, pairs_text, setting_records, settings_text

SETTINGS = [Setting(name, {"loss": name}, {}) for name in ("mse", "cosine", "log-sum")]
TITLES = {setting.label: setting.title for setting in SETTINGS}


def score_table(gains: tuple[float, ...] = (0.0, 0.0, 0.3), seeds: int = 5, cases: int = 9) -> ScoreTable:
    rng = np.random.default_rng(2)
    scores = {
        setting.label: Scores(5 + 10 * gain + rng.normal(size=(seeds, cases)) * 0.2, np.full(cases, 10.0))
        for setting, gain in zip(SETTINGS, gains, strict=True)
    }
    pairs = compare_settings(scores, list(itertools.combinations(scores, 2)), 0.05)
    return ScoreTable(
        "R2",
        {name: estimate_score(each) for name, each in scores.items()},
        {name: each.by_seed.tolist() for name, each in scores.items()},
        pairs,
        not_shown_lower(scores, pairs),
    )


def test_a_record_a_setting_with_its_difference_from_the_reference() -> None:
    each = score_table()
    records = setting_records([each], SETTINGS, ["loss"], "mse")
    assert [record["setting"] for record in records] == ["mse", "cosine", "log-sum"]
    assert [record["verdict"] for record in records] == ["", "not shown", "higher"]
    for record in records:
        assert float(record["low"]) <= float(record["low_cases"]) < float(record["value"]) < float(record["high"])
    less = float(records[2]["value"]) - float(records[0]["value"])
    assert abs(float(records[2]["difference"]) - less) < 2e-6


def test_a_record_a_pair() -> None:
    records = pair_records([score_table()])
    assert [(r["first"], r["second"], r["verdict"]) for r in records] == [
        ("mse", "cosine", "not shown"),
        ("mse", "log-sum", "higher"),
        ("cosine", "log-sum", "higher"),
    ]
    assert all(float(r["p"]) <= float(r["p_holm"]) for r in records)


def test_the_terminal_has_the_highest_first_and_says_the_winner() -> None:
    each = score_table()
    lines = settings_text(each, TITLES, "mse").splitlines()
    assert lines[2].startswith("loss=log-sum")
    assert [("reference" in line) for line in lines[2:]] == [line.startswith("loss=mse") for line in lines[2:]]
    assert "loss=log-sum  higher" in pairs_text(each, TITLES)
    words = conclusion(each, TITLES, 0.05, "mse")
    assert words.startswith("2 of 3 differences in R2 are shown")
    assert words.endswith("Highest: loss=log-sum, shown against every other setting.")


def test_ties_are_all_named() -> None:
    words = conclusion(score_table((0.3, 0.0, 0.3)), TITLES, 0.05, "mse")
    assert "Not shown to be lower than another setting: " in words
    assert "loss=mse" in words
    assert "loss=cosine" not in words


def test_a_difference_of_nothing_has_no_minus() -> None:
    pair = replace(score_table().pairs[0], difference=Estimate(-1e-7, 0.0, 0.0, 1, 1), p=0.9, p_holm=0.9)
    words = pairs_text(replace(score_table(), pairs=[pair]), TITLES)
    assert "+0.0000  +0.0000 to +0.0000" in words
    assert "-0.0000" not in words


def test_a_score_without_differences_is_not_taken_for_one_setting() -> None:
    """Such as those of fidelity, which `g2l evaluate` gives no differences of."""
    each = replace(score_table(), score="CKA with the teacher", pairs=[], best=[])
    not_given = "Not compared: `g2l evaluate` gives no differences in CKA with the teacher."
    assert conclusion(each, TITLES, 0.05, "mse") == not_given
    lost = conclusion(each, TITLES, 0.05, "diverged")
    assert lost == "Not compared: all runs of the reference diverged. Give another --reference."
    alone = replace(each, estimates={"mse": each.estimates["mse"]})
    assert conclusion(alone, TITLES, 0.05, "mse") == "One setting: nothing to compare."


def test_one_run_shows_nothing_and_says_what_it_takes() -> None:
    each = score_table(seeds=1)
    assert conclusion(each, TITLES, 0.05, "mse").startswith("No difference can be said: that takes two runs")
    assert {record["verdict"] for record in pair_records([each])} == {"cannot be said"}
    assert setting_records([each], SETTINGS, ["loss"], "mse")[0]["low"] == ""
