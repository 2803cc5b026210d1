"""docs/encoders.md says of every encoder what the table says."""

import re

import pytest
from support.places import ROOT

from pipeline.encoders.left_out import NOT_BUILT
from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import ENCODERS

ROWS = {
    row[1]: row[0] for row in re.finditer(r"^\| `([^`]+)` \|.*$", (ROOT / "docs/encoders.md").read_text(), re.MULTILINE)
}


def test_it_has_a_row_for_each_and_no_other() -> None:
    assert list(ROWS) == [*ENCODERS, *NOT_BUILT]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_row_says_what_the_table_says(name: str) -> None:
    spec, cells = ENCODERS[name], [cell.strip() for cell in ROWS[name].split("|")]
    assert cells[2] == f"{spec.params_m:,g} M"
    assert cells[3].split()[0] == str(spec.width)
    assert cells[4] == f"{spec.patch_px} px at {f'{spec.mpp:g}' if spec.mpp else '?'}"
    mean, std = (tuple(float(number) for number in part.split()) for part in cells[5].split(","))
    assert (mean, std) == (spec.mean, spec.std)
    assert cells[6] == spec.licence + ", gated" * spec.gated
    assert f"[{spec.page}]" in cells[7]
    assert cells[8] == (f"`{facts_of(spec.page).revision[:8]}`" if facts_of(spec.page).revision else "none")


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_left_out_has_its_reason(name: str) -> None:
    left_out, cells = NOT_BUILT[name], [cell.strip() for cell in ROWS[name].split("|")]
    assert cells[2:5] == [left_out.page or "none found", left_out.about or "nothing", left_out.reason]
