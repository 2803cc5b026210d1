"""The lists of cases that come with the project: there, sourced, and of barcodes."""

import re
from collections import Counter

import pytest

from pipeline.cohort.gdc import source_sites
from pipeline.cohort.leakage.exclusions import listed_ids
from pipeline.config.case_lists import case_list_names, case_list_text

NAMES = case_list_names()


def test_the_lists_are_found() -> None:
    assert {"bcss", "pathorob-tcga-4x4", "tp53"} <= set(NAMES)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_list_is_read_as_it_stands_and_its_cases_are_of_known_sites(name: str) -> None:
    cases = listed_ids(name)
    assert cases == [line for line in case_list_text(name).splitlines() if not line.startswith("#")]
    assert {case.split("-")[1] for case in cases} <= source_sites().keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_list_from_elsewhere_says_repository_path_and_commit(name: str) -> None:
    head = " ".join(line for line in case_list_text(name).splitlines() if line.startswith("#")).replace("# ", "")
    if "of this project" not in head:
        assert re.search(r"Source: github\.com/[\w.-]+/[\w.-]+, [\w./-]+\.csv,.* commit [0-9a-f]{40}, read on", head)


def test_pathorob_has_twelve_cases_of_each_cancer_and_centre_and_ten_of_those_it_tests_on() -> None:
    sites = Counter(case.split("-")[1] for case in listed_ids("pathorob-tcga-4x4"))
    trained_on = {"Asterand", "Christiana Healthcare", "Roswell Park", "University of Pittsburgh"}
    assert len(sites) == 4 * 4 + 8
    assert all(count == (12 if source_sites()[site] in trained_on else 10) for site, count in sites.items())
