"""What is stated of the pages: every one of the table has sources, revisions are commits, hashes are hashes."""

import re

import pytest

from pipeline.encoders.hub import published_files
from pipeline.encoders.page_facts import NO_FACTS, PAGES, facts_of
from pipeline.encoders.table import ENCODERS

NOT_PINNED = {
    "gigapath-flash",
    "distillpath-ks16-virchow2",
    "distillpath-ks16-uni2h",
    "distillpath-ks16-hopt0",
    "distillpath-is16-virchow2",
    "distillpath-is16-uni2h",
    "distillpath-is16-hopt0",
}


def test_every_page_of_the_table_is_known_and_no_other() -> None:
    assert PAGES.keys() == {spec.page.lower() for spec in ENCODERS.values()}
    assert facts_of("owner/name") is NO_FACTS
    assert facts_of("PAIGE-AI/virchow2") is PAGES["paige-ai/virchow2"]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_entry_says_where_it_was_read_and_what_is_taken(name: str) -> None:
    facts = facts_of(ENCODERS[name].page)
    assert facts.read_in
    assert all(facts.read_in)
    assert bool(facts.revision) == (name not in NOT_PINNED)
    assert re.fullmatch("([0-9a-f]{40})?", facts.revision)
    assert re.fullmatch("([0-9a-f]{64})?", facts.sha256)
    assert facts.file in ("", *published_files(ENCODERS[name]))


def test_revisions_and_hashes_are_each_of_one_page() -> None:
    for known in ("revision", "sha256"):
        values = [getattr(facts, known) for facts in PAGES.values() if getattr(facts, known)]
        assert len(set(values)) == len(values)
