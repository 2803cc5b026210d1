"""The card says how the data were split and under which terms a student stands."""

from dataclasses import replace

import pytest

from pipeline.config.recipes import Departure
from pipeline.encoders.table import ENCODERS
from pipeline.student.card import crop_words, model_terms, recipe_note, split_words, terms_section, views_note


def record(name: str, weights: str = "pretrained", **changes: str | bool) -> dict[str, object]:
    return replace(ENCODERS[name], **changes).record() | {"weights": weights}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("h-optimus-0", ("Apache-2.0. Gated", "<https://huggingface.co/bioptimus/H-optimus-0>"), ("Non-commercial",)),
        ("uni2-h", ("must not be used commercially", "Gated: access", "MahmoodLab/UNI2-h"), ("Apache",)),
        ("phikon-v2", ("must not be used commercially",), ("Gated",)),
        ("gigapath", ("Gated: access",), ("commercially",)),
        ("gpfm", ("Read its terms", "must not be used commercially"), ("Gated",)),
        ("midnight-12k", ("MIT.",), ("Gated", "Read its terms", "commercially")),
    ],
)
def test_terms_are_spelled_out(name: str, present: tuple[str, ...], absent: tuple[str, ...]) -> None:
    said = terms_section([record(name)], record("hibou-l"))
    teacher = next(line for line in said.splitlines() if line.startswith("- Teacher"))
    for words in present:
        assert words in teacher
    for words in absent:
        assert words not in teacher
    assert "A student inherits its teacher's terms" in said
    assert "- Student's start: Apache-2.0. Gated: access" in said
    assert "<https://huggingface.co/histai/hibou-L>" in said


def test_unknown_terms_and_random_weights_are_said() -> None:
    assert model_terms("Teacher", record("gpfm", licence="")) == (
        "- Teacher: unknown. Read its terms before you use or share the student. <https://huggingface.co/majiabo/GPFM>"
    )
    assert model_terms("Student's start", record("uni", "scratch")) == "- Student's start: random weights, no terms."
    assert "must not be used commercially" in model_terms("Teacher", record("gpfm", licence="cc-by-nc-4.0"))


def test_the_split_is_said() -> None:
    known = {"slides": 4, "unknown": 0, "not_recorded": 0, "repeats_ids": False, "barcodes": 0}
    assert "by case: no case" in split_words({"val_rows": 3, "val_strip": None, "cases": known})
    assert "no case, and" not in split_words({"val_rows": 3, "val_strip": None, "cases": known | {"unknown": 1}})
    assert "in space" in split_words({"val_rows": 3, "val_strip": 0.2})
    assert "It says nothing of other cases" in split_words({"val_rows": 3, "val_strip": 0.2}).replace("\n", " ")
    assert split_words({"val_rows": 0, "val_strip": None}) == "Nothing was held out."


def test_the_recipe_is_named_with_what_departs_from_it() -> None:
    assert recipe_note(None) == ""
    assert recipe_note(("paper", [])) == "- Recipe: paper\n"
    departed = [Departure("plan", "mpp", 0.5, 0.25), Departure("train-student", "loss", "log-sum", "a|b")]
    assert recipe_note(("paper", departed)) == (
        "- Recipe: paper, but for\n  - plan --mpp 0.25, not 0.5\n  - train-student --loss a&#124;b, not log-sum\n"
    )


def test_views_are_named_with_their_crop() -> None:
    assert crop_words(224, 224) == views_note("none", 1) == ""
    assert views_note("none", 11, "paper", crop_words(224, 256)) == (
        "- 11 views of each patch (strength: paper, each a crop of 224 of 256 px), each compared with the teacher's "
        "embedding of that view.\n"
    )
    assert "views of each patch, each compared" in views_note("none", 3)
