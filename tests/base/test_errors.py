"""Words of errors: the likely name, the system's paths, one line."""

import pytest

from pipeline.base.errors import did_you_mean


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [("scrach", ("pretrained", "scratch"), "scratch"), ("UNI", ("uni", "uni2-h"), "uni"),
     ("logsum", ("log-sum",), "log-sum"), ("weights.pth", ("pretrained", "scratch"), ""), ("x", (), "")],
)  # fmt: skip
def test_a_mistyped_name_gets_the_likely_one(given: str, known: tuple[str, ...], meant: str) -> None:
    assert did_you_mean(given, known) == (f" (did you mean {meant}?)" if meant else "")
