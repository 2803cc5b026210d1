"""Findings as they are told."""

import pytest

from stages.doctor.findings import Finding, describe, good, note, trouble


def test_findings_are_told_by_section_with_what_to_do_and_counted() -> None:
    text, is_bad = describe(
        [("one", [good("a", "is so")]), ("two", [note("b", "is odd", "look"), trouble("c", "no", "do")])]
    )
    assert text.splitlines() == [
        "one",
        "  ok      a: is so",
        "two",
        "  note    b: is odd",
        "          -> look",
        "  TROUBLE c: no",
        "          -> do",
        "1 in trouble, 1 to note, 1 in order",
    ]
    assert is_bad
    assert not describe([("one", [note("b", "is odd", "look")])])[1]


@pytest.mark.parametrize("level", ["note", "trouble"])
def test_a_finding_that_asks_for_something_says_what(level: str) -> None:
    with pytest.raises(AssertionError, match="says what to do"):
        Finding(level, "a", "is odd")  # type: ignore[arg-type]
