"""Margins of croma: what they are of known embeddings, and a note wherever there are none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.processes import said_with_threads
from support.robustness_patches import draw, draw_two_by_two, known

from pipeline.evaluate.robustness import margins as robustness_margins


@pytest.mark.slow
def test_margins_do_not_depend_on_the_order_of_rows() -> None:
    for patches in (draw(0, num_rows=90), draw_two_by_two(1)):
        rows = np.random.default_rng(1).permutation(len(patches.classes))
        assert patches.margins(5) == patches.take(rows).margins(5)
        assert patches.margins(5).croma.low < patches.margins(5).croma.value < patches.margins(5).croma.high


def test_names_are_not_joined_by_their_blanks() -> None:
    patches = draw(0, num_rows=90, num_classes=2)
    blank = replace(patches, classes=np.where(patches.classes == "stroma", "a", "a "))
    assert blank.margins(5).mari == patches.margins(5).mari


def test_margins_that_do_not_exist_are_notes() -> None:
    patches = draw(0, num_rows=90)
    alone = replace(patches, classes=patches.classes.copy())
    alone.classes[0] = "only one"  # no patch of its class is elsewhere
    margins = alone.margins(5)
    assert np.isnan(margins.croma.value)
    assert np.isfinite(margins.mari)
    assert any("no CRoMa" in note and "1/90" in note for note in margins.notes)
    three = replace(draw(0, num_rows=90), subsets=np.repeat(["a", "b", "c"], 30))
    assert three.margins(5).notes == (
        "no margins: croma takes subsets only if each is two classes by two centres, all four",
    )


def test_what_croma_warns_of_becomes_a_note() -> None:
    """Warnings are errors in these tests: that none escapes is tested as well."""
    margins = known("biology").margins(k=1)
    assert any(note.startswith("croma: ") and "support" in note for note in margins.notes)


def test_croma_is_not_asked_for_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness_margins, "MAX_CELLS", 449)
    margins = draw(0, num_rows=90).margins(5)
    assert np.isnan(margins.mari)
    assert margins.notes[0] == "no MaRI: 90 patches with 5 neighbours each need too much memory in croma"
    assert np.isfinite(margins.croma.value)


def print_margins() -> None:
    """The margins of one set, for another process to compare with."""
    rng = np.random.default_rng(0)
    rows = 1500
    classes, centers = (rng.integers(2, size=rows).astype(str) for _ in range(2))
    slides = np.array([f"{center}-{i % 9}" for i, center in enumerate(centers)])
    values = rng.normal(size=(rows, 48)).astype(np.float32)
    values[:, 0] += 2 * (classes == "1")
    values[:, 1] += 2 * (centers == "1")
    values[1::7] = values[::7][: len(values[1::7])]
    print(robustness_margins.robustness_margins(values, classes, centers, slides, None, 11, 100, 0))


@pytest.mark.slow
def test_margins_have_the_same_digits_on_any_number_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """On those of this process, and on four of another."""
    print_margins()
    here = capsys.readouterr().out
    assert "Margins(" in here
    assert said_with_threads(4, "import test_margins as t; t.print_margins()", Path(__file__).parent) == here
