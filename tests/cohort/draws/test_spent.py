"""What a budget came to is said with what it rests on."""

from typing import Any

import pytest

from pipeline.cohort.draws.spent import budget_lines


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "--budget 9 came to 1,200 of 9,000 patches, at most 10 of a slide."),
        ({"patches_a_second": 150.0}, "--budget 9 at 150 patches a second came to"),
        ({"embedding_bytes": 3072, "pixels": "none"}, "with 3.07 kB of embeddings a patch and no pixels came to"),
    ],
)
def test_what_a_budget_came_to_is_said(more: dict[str, Any], words: str) -> None:
    (line,) = budget_lines({"budget": "9", "patches": 1200, "of_patches": 9000, "most_of_a_slide": 10} | more)
    assert words in line
    assert budget_lines(None) == []
