"""docs/encoders.md says of every encoder what the table says."""

import re

import pytest
from support.places import ROOT

from pipeline.encoders import page_facts
from pipeline.encoders.left_out import NOT_BUILT
from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import ENCODERS

EMBEDDINGS = {"cls": "class", "cls+mean": "class + mean", "pooled": "pooled"}
LETTERS = {
    page_facts.TRIDENT: "t",
    page_facts.RAW2FEATURES: "r",
    page_facts.SLIDE2VEC: "s",
    page_facts.LAZYSLIDE: "l",
    page_facts.THUNDER: "h",
    page_facts.EVA: "e",
    page_facts.PAGE_ITSELF: "p",
    page_facts.HISTORY: "c",
}
"""What the page calls a source; other sources are repositories of the authors ("g"), or the page itself in part."""
ROWS = {
    row[1]: row[0] for row in re.finditer(r"^\| `([^`]+)` \|.*$", (ROOT / "docs/encoders.md").read_text(), re.MULTILINE)
}


def test_it_has_a_row_for_each_and_no_other() -> None:
    assert list(ROWS) == [*ENCODERS, *NOT_BUILT]


def letter(source: str) -> str:
    """What the page calls a source."""
    if source in LETTERS:
        return LETTERS[source]
    return "p" if page_facts.PAGE_ITSELF in source else "g" * source.startswith("github.com/")


def test_the_page_explains_its_letters() -> None:
    """Each with words that stand in the source's own."""
    text = " ".join((ROOT / "docs/encoders.md").read_text().split())
    for source, each in LETTERS.items():
        (words,) = re.findall(rf"\*\*{each}\*\* ([^*]+?)(?:, \*\*|\.(?: |$))", text)
        known = source.lower().replace("github.com/", "")
        first, *_ = re.split(r"[\W_]", words.removeprefix("the ").lower())
        assert all(word in known for word in (first, *re.findall(r"\b\d[\w.]*", words))), (each, words)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_row_says_what_the_table_says(name: str) -> None:
    spec, cells = ENCODERS[name], [cell.strip() for cell in ROWS[name].split("|")]
    assert cells[2] == f"{spec.params_m:,g} M"
    assert cells[3] == f"{spec.width} {EMBEDDINGS[spec.embedding]}"
    assert cells[4] == f"{spec.patch_px} px at {f'{spec.mpp:g}' if spec.mpp else '?'}"
    mean, std = (tuple(float(number) for number in part.split()) for part in cells[5].split(","))
    assert (mean, std) == (spec.mean, spec.std)
    assert cells[6] == spec.licence + ", gated" * spec.gated
    assert cells[7] == f"[{spec.page}](https://huggingface.co/{spec.page})"
    assert cells[8] == (f"`{facts_of(spec.page).revision[:8]}`" if facts_of(spec.page).revision else "none")
    assert cells[9] == " ".join(letter(source) for source in facts_of(spec.page).read_in)


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_left_out_has_its_reason(name: str) -> None:
    left_out, cells = NOT_BUILT[name], [cell.strip() for cell in ROWS[name].split("|")]
    assert cells[2:5] == [left_out.page or "none found", left_out.about or "nothing", left_out.reason]
