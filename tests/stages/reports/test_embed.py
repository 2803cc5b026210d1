"""What `g2l embed` says at its end, and the counts that a finished folder keeps."""

import json
from pathlib import Path

import pytest

from stages.reports.embed import NAMED, Tally, embed_report

OUT = Path("out")


def test_new_patches_are_told_with_their_rate() -> None:
    tally = Tally(OUT, OUT / "h5_files", width=96, num_before=1, new_patches=3000, seconds=2.0)
    for rows in (1000, 2000):
        tally.add(rows, 0)
    first, rate, before = embed_report(tally).splitlines()
    assert first == f"{OUT / 'h5_files'}: 3,000 patches of 96 dimensions (slides: 2)"
    assert rate.startswith("3,000 patches in ")
    assert rate.endswith(", 1500.0 a second")
    assert before == "slides finished before: 1"
    assert not tally.is_partial


def test_nothing_left_is_said_only_where_nothing_failed() -> None:
    assert "nothing was left to do" in embed_report(Tally(OUT, OUT))
    assert "nothing was left to do" not in embed_report(Tally(OUT, OUT, reasons={"a": "no slide"}))


def test_failed_slides_and_patches_make_it_partial_and_are_told() -> None:
    tally = Tally(OUT, OUT)
    tally.add(10, 2)
    assert tally.is_partial
    assert "--retry-failures embeds slides with left-out patches again" in embed_report(tally)
    tally = Tally(OUT, OUT, reasons={"a": "no such slide"})
    assert tally.is_partial
    shown = embed_report(tally)
    assert "failed slides: 1, patches left out of the others: 0; listed in " in shown
    assert "\n  a: no such slide" in shown
    assert "--retry-failures" not in shown


def test_long_lists_are_cut() -> None:
    many = {f"s{i}": f"reason {i}" for i in range(NAMED + 3)}
    shown = embed_report(Tally(OUT, OUT, reasons=many, warnings=dict.fromkeys(many, "odd")))
    assert f"failed slides: {NAMED + 3}, " in shown
    assert shown.count("reason ") == shown.count("warning: ") == NAMED
    assert "... and 3 more slides with warnings; g2l plan lists them" in shown
    exactly = embed_report(Tally(OUT, OUT, warnings=dict.fromkeys(list(many)[:NAMED], "odd")))
    assert "more slides" not in exactly


def test_the_record_of_a_finished_folder_comes_back_with_nothing_new() -> None:
    tally = Tally(OUT, OUT / "20x" / "features", width=96, new_patches=12, seconds=3.0, warnings={"a": "odd"})
    tally.add(12, 1)
    again = Tally.from_record(OUT, json.loads(json.dumps(tally.record())))
    assert again.record() == tally.record()
    assert (again.where, again.num_before, again.new_patches, again.warnings) == (tally.where, 1, 0, {})
    assert again.is_partial  # patches that are left out stay so


@pytest.mark.parametrize("damage", [{"width": "x"}, {"num_slides": None}, {"failed_patches": []}])
def test_a_damaged_record_is_an_error_of_the_kinds_that_callers_expect(damage: dict[str, object]) -> None:
    record = Tally(OUT, OUT).record()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Tally.from_record(OUT, record | damage)
    for name in record:
        with pytest.raises(KeyError, match=name):
            Tally.from_record(OUT, {key: value for key, value in record.items() if key != name})
