"""Names of held-out figures, and which epoch was best."""

import itertools
import re
from typing import Any

from support.places import ROOT

from pipeline.training.held_out import FIGURES, MEANINGS, Best, best_validation, best_words, gains_table, history_table


def val(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"kind": "val", "step": step, "epoch": step // 10, "loss": loss, "rows": 9, "cosine": 0.5} | more


LINES = [val(0, 5.0), {"kind": "step", "step": 1, "loss": 0.1}, val(10, 3.0), val(20, 2.0), val(30, 2.0), val(40, 2.5)]
ONE = {"": 1.0}


def test_every_figure_has_a_name_of_its_own_and_a_meaning() -> None:
    assert FIGURES.keys() == MEANINGS.keys()
    assert len(set(FIGURES.values())) == len(FIGURES)


def test_the_best_epoch_is_the_first_of_the_smallest_loss() -> None:
    assert best_validation(LINES, ONE) == Best(20, 2, 2.0)
    assert best_validation(LINES[:1], ONE) is None
    assert best_validation([val(0, 1.0), val(10, 3.0)], ONE) == Best(10, 1, 3.0)  # the start is no trained student


def test_of_several_teachers_the_weighted_sum_counts() -> None:
    lines = [
        val(s, loss, teacher=t) for s, a, b in ((10, 1.0, 9.0), (20, 3.0, 2.0)) for t, loss in (("a", a), ("b", b))
    ]
    assert best_validation(lines, {"a": 0.75, "b": 0.25}) == Best(20, 2, 2.75)
    assert best_validation(lines, {"a": 1.0, "b": 0.0}) == Best(10, 1, 1.0)


def test_a_step_that_a_kill_cut_short_is_no_validation() -> None:
    """Killed between the lines of two teachers: half a sum is smaller than every whole one."""
    whole = [val(s, 2.0, teacher=t) for s in (0, 10) for t in ("a", "b")]
    weights = {"a": 0.5, "b": 0.5}
    for cut in (val(20, 3.0, teacher="a"), val(20, 3.0, teacher="b")):
        assert best_validation([*whole, cut], weights) == Best(10, 1, 2.0)
        assert best_words([*whole, cut], weights) == best_words(whole, weights)
    assert best_validation([val(10, 3.0, teacher="a")], weights) is None


def test_words_say_which_epoch_was_best_and_which_is_exported() -> None:
    assert best_words(LINES, ONE) == (
        "The held-out loss was smallest after epoch 2 (2.0000; after the last, epoch 4, 2.5000); "
        "the last epoch is exported."
    )
    assert best_words(LINES, ONE, 20).endswith("epoch 2 is exported.")
    assert best_words(LINES[:4], ONE) == "The held-out loss was smallest after epoch 2 (2.0000)."
    assert best_words([val(0, 1.0), val(10, 3.0)], ONE).endswith("never fell below its value at the start, 1.0000.")
    assert best_words([], ONE) == ""


def test_tables_have_the_figures_that_a_run_has() -> None:
    old = [val(0, 5.0, explained_variance=-1.5), val(10, 3.0, explained_variance=-0.3)]
    assert "explained variance, unscaled" in gains_table(old[0], old[1])
    assert "explained variance, unscaled" in history_table(old)
    new = [val(0, 5.0, correlation_mean=0.1), val(10, 3.0, correlation_mean=0.4)]
    words = history_table(new * 20)
    assert "explained" not in words
    assert len(words.splitlines()) == 14  # two of header
    lines = [line.split() for line in gains_table(new[0], new[1]).splitlines()[-2:]]
    assert lines == [["correlation", "0.1000", "0.4000"], ["cosine", "0.5000", "0.5000"]]
    nothing = val(0, 5.0, correlation_mean=-1e-6)
    assert "-0.0000" not in gains_table(nothing, nothing) + history_table([nothing])


def test_the_readme_s_table_has_the_figures_of_a_run_in_their_order() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    heading = next(i for i, line in enumerate(lines) if line.strip().startswith("on 241 held-out patches"))
    rows = list(itertools.takewhile(str.strip, lines[heading + 2 :]))
    names = [re.split(r"\s{2,}", row.strip())[0] for row in rows]
    assert names == [FIGURES[key] for key in FIGURES if key not in ("loss", "explained_variance")]
