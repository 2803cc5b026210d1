"""The lists of cases that come with the project: there, sourced, and of barcodes."""

import re

import pytest

from pipeline.config.case_lists import case_list_names, case_list_text

NAMES = case_list_names()


def test_the_lists_are_found() -> None:
    assert {"bcss", "tp53"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_says_its_source_and_lists_cases_once_and_in_order(name: str) -> None:
    lines = case_list_text(name).splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[: len(head)] == head
    assert re.search(r"Source: .*20\d\d-\d\d-\d\d", " ".join(head).replace("# ", ""))
    cases = lines[len(head) :]
    assert cases == sorted(set(cases))
    assert all(re.fullmatch(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", case) for case in cases)
    assert f"{len(cases):,} cases" in " ".join(head)
