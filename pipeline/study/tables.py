"""Tables of an ablation, for the terminal and as CSV; and what they show, in sentences. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from pipeline.base.console import table
from pipeline.study.compare import Estimate, Pair
from pipeline.study.grid import Setting

DIGITS = 6
"""Decimals of scores in a CSV. Our choice: what differs beyond is rounding."""
MOST_PAIRS = 40
"""Pairs that the terminal shows; the CSV has all. Our choice."""


@dataclass(frozen=True)
class ScoreTable:
    """One score of all settings.

    Attributes:
        score: its name.
        estimates: by the label of a setting; without those of which it could not be had.
        by_seed: scores of the runs.
        pairs: the comparisons; those with the reference have it as `first`.
        best: settings that no pair shows to be lower than another one, the highest first; empty if not all pairs were
            compared.
    """

    score: str
    estimates: Mapping[str, Estimate]
    by_seed: Mapping[str, Sequence[float]]
    pairs: Sequence[Pair]
    best: Sequence[str]


def setting_records(
    tables: Sequence[ScoreTable], settings: Sequence[Setting], names: Sequence[str], reference: str
) -> list[dict[str, Any]]:
    """A record a score and setting, for CSV; `names` are those of the varied options."""
    records = []
    for each in tables:
        against = {pair.second: pair for pair in each.pairs if pair.first == reference}
        for setting in settings:
            estimate = each.estimates.get(setting.label)
            if estimate is None:
                continue
            pair = against.get(setting.label)
            records.append(
                {
                    "score": each.score,
                    "setting": setting.label,
                    **{name: setting.words.get(name, "") for name in names},
                    "runs": len(each.by_seed[setting.label]),
                    **_numbers(estimate, ("both", "seeds", "cases")),
                    "against": reference if pair else "",
                    **(_difference(pair) if pair else dict.fromkeys(_DIFFERENCE, "")),
                }
            )
    return records


_DIFFERENCE = ("difference", "difference_low", "difference_high", "p", "p_holm", "verdict")
PAIR_COLUMNS = ("score", "first", "second", *_DIFFERENCE)
"""Of `pair_records`, also where there is no pair: one setting is left if all runs of the others diverged."""


def pair_records(tables: Sequence[ScoreTable]) -> list[dict[str, Any]]:
    """A record a score and pair, for CSV; a difference is the second less the first."""
    return [
        {"score": each.score, "first": pair.first, "second": pair.second, **_difference(pair)}
        for each in tables
        for pair in each.pairs
    ]


def _difference(pair: Pair) -> dict[str, Any]:
    low, high = pair.difference.interval()
    numbers = (_written(pair.difference.value), _written(low), _written(high), _p(pair.p), _p(pair.p_holm))
    return dict(zip(_DIFFERENCE, (*numbers, pair.verdict), strict=True))


def _numbers(estimate: Estimate, kinds: Sequence[str]) -> dict[str, Any]:
    """Value and intervals; those over both are `low` and `high`."""
    numbers = {"value": _written(estimate.value)}
    for kind in kinds:
        suffix = "" if kind == "both" else f"_{kind}"
        for end, number in zip(("low", "high"), estimate.interval(kind), strict=True):
            numbers[f"{end}{suffix}"] = _written(number)
    return numbers


def _written(number: float) -> str:
    return f"{number:.{DIGITS}f}" if isfinite(number) else ""


def _p(number: float) -> str:
    return "" if isnan(number) else f"{number:.3g}"


def settings_text(each: ScoreTable, titles: Mapping[str, str], reference: str) -> str:
    """The table of one score for the terminal, the highest first."""
    against = {pair.second: pair for pair in each.pairs if pair.first == reference}
    rows = []
    for label in sorted(each.estimates, key=lambda label: -each.estimates[label].value):
        estimate, pair = each.estimates[label], against.get(label)
        cells = [titles[label], len(each.by_seed[label]), f"{estimate.value:z.4f}"]
        cells += [_interval(estimate, over) for over in ("seeds", "cases", "both")]
        if pair is None:
            cells += ["reference" if label == reference else "", "", ""]
        else:
            cells += [f"{pair.difference.value:+z.4f}", _interval(pair.difference, "both", "+"), pair.verdict]
        rows.append(cells)
    head = ("setting", "runs", each.score, "95 % seeds", "95 % cases", "95 % both", "less reference", "95 %", "shown?")
    return table(rows, head, right=(1, 2, 6))


def _interval(estimate: Estimate, over: str, sign: str = "") -> str:
    low, high = estimate.interval(over)
    return f"{low:{sign}z.4f} to {high:{sign}z.4f}" if isfinite(low) else ""


def pairs_text(each: ScoreTable, titles: Mapping[str, str]) -> str:
    """The comparisons of one score for the terminal, the smallest corrected p-value first; "" if there are none."""
    ranked = sorted(each.pairs, key=lambda pair: (isnan(pair.p), pair.p_holm, pair.p))
    rows = []
    for pair in ranked[:MOST_PAIRS]:
        words = [titles[pair.second], pair.verdict, titles[pair.first], f"{pair.difference.value:+z.4f}"]
        rows.append([*words, _interval(pair.difference, "both", "+"), _p(pair.p), _p(pair.p_holm)])
    if not rows:
        return ""
    text = table(rows, ("setting", "is", "than", "difference", "95 %", "p", "p, Holm"), right=(3, 5, 6))
    more = len(ranked) - len(rows)
    return text + (f"\n{more:,} more pairs are in pairs.csv" if more > 0 else "")


def conclusion(each: ScoreTable, titles: Mapping[str, str], level: float, reference: str) -> str:
    """What the comparisons of one score show, in a sentence."""
    if not each.pairs:
        return _why_no_pairs(each, reference)
    untested = sum(isnan(pair.p) for pair in each.pairs)
    shown = sum(pair.verdict in ("higher", "lower") for pair in each.pairs)
    if untested == len(each.pairs):
        return (
            "No difference can be said: that takes two runs a setting or more (--seeds), and held-out patches of two "
            "cases or more. A score of `g2l evaluate` also needs an interval there."
        )
    text = (
        f"{shown} of {len(each.pairs)} differences in {each.score} are shown, at a level of {level:g} for all together"
    )
    if len(each.best) == 1:
        return f"{text}. Highest: {titles[each.best[0]]}, shown against every other setting."
    if each.best:
        return f"{text}. Not shown to be lower than another setting: {'; '.join(titles[name] for name in each.best)}."
    return f"{text}. The settings were compared with the reference only."


def _why_no_pairs(each: ScoreTable, reference: str) -> str:
    """Why nothing was compared by a score, in a sentence."""
    if len(each.estimates) < 2:
        return "One setting: nothing to compare."
    if reference not in each.estimates:
        return "Not compared: all runs of the reference diverged. Give another --reference."
    return f"Not compared: `g2l evaluate` gives no differences in {each.score}."
