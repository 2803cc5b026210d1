"""What `g2l doctor` finds: each finding says what was looked at, what is so, and what to do about it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "trouble"]
"""Nothing to do; worth knowing, or slower than need be; something that a run would stop at or that spoils it."""
MARKS: dict[Level, str] = {"ok": "ok      ", "note": "note    ", "trouble": "TROUBLE "}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: how bad it is.
        subject: what was looked at.
        words: what is so.
        advice: what to do; empty only where nothing need be done.
    """

    level: Level
    subject: str
    words: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.level == "ok" or self.advice, f"{self.subject}: a finding says what to do"


def good(subject: str, words: str) -> Finding:
    """A finding where there is nothing to do."""
    return Finding("ok", subject, words)


def note(subject: str, words: str, advice: str) -> Finding:
    """A finding that no run stops at."""
    return Finding("note", subject, words, advice)


def trouble(subject: str, words: str, advice: str) -> Finding:
    """A finding that a run stops at, or that spoils what it makes."""
    return Finding("trouble", subject, words, advice)


def describe(sections: Sequence[tuple[str, Iterable[Finding]]]) -> tuple[str, bool]:
    """All findings by section for the terminal, with a count in the end; and whether there is trouble."""
    lines, levels = [], []
    for heading, findings in sections:
        lines += [heading]
        for each in findings:
            levels.append(each.level)
            lines.append(f"  {MARKS[each.level]}{each.subject}: {each.words}")
            if each.advice:
                lines.append(f"          -> {each.advice}")
    troubles, notes = levels.count("trouble"), levels.count("note")
    lines.append(f"{troubles} in trouble, {notes} to note, {levels.count('ok')} in order")
    return "\n".join(lines), troubles > 0
