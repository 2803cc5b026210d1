"""What `g2l models` says of revisions, of sources and of the encoders that are left out."""

import pytest

from pipeline.encoders.left_out import NOT_BUILT
from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import ENCODERS, named_spec
from stages.reports.models import describe_left_out, left_out_table, page_rows


def test_a_pinned_page_says_its_revision_and_where_it_was_read() -> None:
    spec = ENCODERS["virchow2"]
    rows, facts = dict(page_rows(spec)), facts_of(spec.page)
    assert rows["revision"] == f"{facts.revision} (pinned; hf-hub:{spec.page}@main for the latest)"
    assert rows["sha256 of its file"] == facts.sha256
    assert "TRIDENT" in str(rows["read in"])


def test_a_page_without_a_revision_says_so() -> None:
    rows = dict(page_rows(named_spec("hf-hub:owner/name")))
    assert rows == {"revision": "not pinned: the page's main one; name one as hf-hub:owner/name@REVISION"}


def test_a_revision_that_was_named_is_the_one() -> None:
    page = ENCODERS["virchow2"].page
    rows = dict(page_rows(named_spec(f"hf-hub:{page}@abc")))
    assert rows["revision"] == "abc"
    assert "sha256 of its file" not in rows


def test_a_page_that_is_left_out_and_works_by_its_address_says_what_is_missing() -> None:
    rows = dict(page_rows(named_spec("hf-hub:medarc/OpenMidnight-1.1")))
    left_out = NOT_BUILT["openmidnight-1.1"]
    assert (rows["listed as"], rows["known"], rows["not in the table"]) == (
        "openmidnight-1.1",
        left_out.about,
        left_out.reason,
    )


def test_what_has_no_page_says_nothing() -> None:
    assert page_rows(named_spec("resnet50")) == []


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_left_out_is_listed_and_described(name: str) -> None:
    assert name in left_out_table()
    said = describe_left_out(name)
    for words in (NOT_BUILT[name].reason, NOT_BUILT[name].instead):
        assert words in " ".join(said.split())
