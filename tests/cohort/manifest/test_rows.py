"""The rows of a manifest: which cases are held out."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohort.manifest.rows import ManifestRow, row_split, split_of_case


def test_split_is_the_documented_hash() -> None:
    position = int(hashlib.sha256(b"TCGA-3C-AALI").hexdigest()[:12], 16) / 16**12
    assert split_of_case("TCGA-3C-AALI", position) == "train"
    assert split_of_case("TCGA-3C-AALI", position + 1e-9) == "val"


@pytest.mark.slow
@settings(deadline=None)  # other work on the machine must not fail a test
@given(st.text(st.characters(codec="utf-8")), st.floats(0, 1), st.floats(0, 1))
def test_split_is_monotone(case_id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert not (split_of_case(case_id, low) == "val" and split_of_case(case_id, high) == "train")
    assert split_of_case(case_id, 0) == "train"
    assert split_of_case(case_id, 1) == "val"


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.5])
def test_split_holds_out_the_fraction(fraction: float) -> None:
    num_cases = 20_000
    num_val = sum(split_of_case(f"case-{i}", fraction) == "val" for i in range(num_cases))
    assert abs(num_val / num_cases - fraction) < 4 * (fraction * (1 - fraction) / num_cases) ** 0.5  # 4 sigma


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_split_refuses_no_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="val_fraction must be 0 to 1"):
        split_of_case("a", fraction)


def test_explicit_split_wins() -> None:
    row = ManifestRow("a", "a.svs", "a")
    assert row_split(replace(row, split="val"), 0.0) == "val"
    assert row_split(replace(row, split="train"), 1.0) == "train"
    assert row_split(row, 1.0) == "val"
