"""The rules by which a plan finds tissue and drops what is none: their names, what each does, and which are on. Pure.

A rule is a step with a name. `g2l plan --skip-rule NAME` turns one off, `--use-rule NAME` turns on one that is off.
What they do is in `slides/tissue.py` and `slides/artefacts/`; their figures are in docs/tissue.md.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

RuleName = Literal["border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"]
"""The rules, in the order in which they run."""


@dataclass(frozen=True)
class RuleWords:
    """What a user is told of a rule.

    Attributes:
        description: what it does, in a line.
        is_on: whether it runs without `--use-rule`.
        is_old: whether earlier versions, which had no names for rules, did the same.
    """

    description: str
    is_on: bool = True
    is_old: bool = False


RULE_WORDS: dict[RuleName, RuleWords] = {
    "border": RuleWords("drops the black or dark grey frame that scanners leave around a scan"),
    "dark": RuleWords("drops what is too dark to have a colour, such as black marks", is_old=True),
    "faint": RuleWords("finds pale tissue: measures the threshold against the slide's own glass"),
    "grey": RuleWords("finds grey tissue, where a slide has no coloured one"),
    "specks": RuleWords("drops pieces of less than 0.02 mm2", is_old=True),
    "haze": RuleWords("drops pale areas without any texture: stain on the glass"),
    "pen": RuleWords("drops black, blue, green and red ink, on the glass and over the tissue"),
    "edges": RuleWords("drops edges of air bubbles and coverslips with what is within a ring, hairs and threads"),
    "folds": RuleWords("drops strips in which the section lies on itself; not all, and it takes time", is_on=False),
    "blank": RuleWords("drops rectangles of one colour: tiles that a scanner or a converter left blank"),
    "blur": RuleWords("drops what is out of focus against the slide's own sharpness, as far as 8 um/px shows it"),
    "fat": RuleWords("drops fat and empty lumen: places that are mostly as clear as the glass", is_on=False),
}
"""The rules by name, in the order in which they run."""
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)
EARLIER_RULES = tuple(name for name in RULE_NAMES if RULE_WORDS[name].is_old)
"""What earlier versions did."""
LATER_RULES = [name for name in RULE_NAMES if RULE_WORDS[name].is_on and not RULE_WORDS[name].is_old]
"""What a plan of earlier versions skips, by today's names."""
ARTEFACT_RULES: tuple[RuleName, ...] = ("pen", "edges", "folds", "blank", "blur")
"""What lies over tissue, or spoils it: a patch of which more than `--max-artefact` was dropped by them is no patch."""
MAX_ARTEFACT = 0.1
"""Default of `--max-artefact`. Our choice: a fold of 30 um covers a quarter of a patch of 112 um that it crosses, and
leaves more than half of it as tissue; the margins of what merely touches a patch cover 7 %."""
OPTIONAL_RULES = [name for name in RULE_NAMES if not RULE_WORDS[name].is_on]
"""What `--use-rule` can turn on."""


def in_rule_order(names: Iterable[RuleName]) -> list[RuleName]:
    """These rules, each once, in the order in which they run: the same choice makes the same record."""
    return sorted(set(names), key=RULE_NAMES.index)


def rules_in_use(skipped: Collection[RuleName], used: Collection[RuleName]) -> tuple[RuleName, ...]:
    """The rules that run, where `skipped` are turned off and `used` turned on."""
    return tuple(name for name in RULE_NAMES if name not in skipped and (RULE_WORDS[name].is_on or name in used))
