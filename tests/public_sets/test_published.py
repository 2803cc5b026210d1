"""Published values: the file is sound, and models find theirs."""

from collections import Counter

import pytest
from support.places import ROOT

from pipeline.encoders.table import ENCODERS
from pipeline.public_sets.measured import MEASURED
from pipeline.public_sets.published import PUBLISHED_COLUMNS, PublishedValue, published_name, published_values, value_of
from pipeline.public_sets.recipe import left_out_sets, set_recipes
from pipeline.report.content import AFTER, ReportModel

PAPER = {
    ("tils", "kNN accuracy"): (0.9362, 0.9344, 0.9291, 0.9214),
    ("tp53", "slides, kNN accuracy"): (0.6904, 0.6598, 0.6542, 0.6504),
    ("idc", "kNN accuracy"): (0.9232, 0.9141, 0.9165, 0.9074),
    ("gleason", "kNN accuracy"): (0.8988, 0.8994, 0.8678, 0.8124),
    ("aggc", "kNN accuracy"): (0.9243, 0.9226, 0.9170, 0.8788),
    ("chimera", "slides, kNN accuracy"): (0.7657, 0.7663, 0.7605, 0.7184),
    ("tils", "linear probe AUROC"): (0.9838, 0.9822, 0.9788, 0.9827),
    ("tp53", "slides, AUROC of the mean"): (0.8046, 0.7603, 0.6795, 0.7085),
    ("idc", "linear probe AUROC"): (0.9796, 0.9778, 0.9756, 0.9488),
    ("gleason", "linear probe AUROC"): (0.9841, 0.9846, 0.9790, 0.9708),
    ("aggc", "linear probe AUROC"): (0.9958, 0.9955, 0.9956, 0.9921),
    ("tiger", "class to centre, k = 3"): (1.0891, 1.0826, 1.0682, 0.9056),
    ("tiger", "class to centre, k = 5"): (1.3002, 1.1890, 1.2433, 0.9905),
    ("tiger", "class to centre, k = 10"): (1.5021, 1.3730, 1.4113, 1.0879),
    ("tiger", "class to centre, k = 20"): (2.0316, 1.8467, 1.8548, 1.1855),
}
"""The paper's tables: G2L, H-optimus-0, UNI2-h, Hibou-L."""
CKA = {"bracs": (0.7594, 0.9683), "breakhis": (0.8909, 0.9558), "breakhis-100x": (0.9147, 0.9686)}
CKA |= {"breakhis-200x": (0.9230, 0.9734), "breakhis-400x": (0.8995, 0.9575)}


def test_the_file_has_one_row_a_value_of_known_sets_and_metrics() -> None:
    header = (ROOT / "data_manifests" / "published.csv").read_text().splitlines()[0]
    assert header == ",".join(PUBLISHED_COLUMNS)
    counts = Counter((each.set, each.model.lower(), each.metric) for each in published_values())
    assert [key for key, count in counts.items() if count > 1] == []
    assert {each.set for each in published_values()} <= set_recipes().keys() | left_out_sets().keys()
    assert {each.metric for each in published_values()} <= MEASURED.keys()


@pytest.mark.parametrize("value", published_values(), ids=lambda each: f"{each.set}-{each.model}-{each.metric}")
def test_a_value_is_in_range_and_has_a_source(value: PublishedValue) -> None:
    most = 10.0 if value.metric.startswith("class to centre") else 1.0
    assert 0 < value.value < most
    assert value.low is None or value.low <= value.value
    assert value.high is None or value.high >= value.value
    assert value.source
    assert value.place
    assert value.protocol in ("paper", "eva", "pathorob")
    if value.set in set_recipes():
        assert value.metric in {metric.name for metric in set_recipes()[value.set].metrics}


def test_the_papers_tables_are_all_there() -> None:
    for (name, metric), expected in PAPER.items():
        found = [value_of(name, model, metric) for model in ("g2l", "h-optimus-0", "uni2-h", "hibou-l")]
        assert tuple(each.value for each in found if each) == expected, (name, metric)
    for name, (before, after) in CKA.items():
        values = [value_of(name, model, "CKA with the teacher") for model in ("hibou-l", "g2l")]
        assert [each.value for each in values if each] == [before, after]
    of_paper = [each for each in published_values() if each.protocol == "paper"]
    assert len(of_paper) == 4 * len(PAPER) + 2 * len(CKA)


def test_models_of_the_table_are_called_as_the_table_calls_them() -> None:
    """So that an encoder with its published weights finds its values."""
    names = {each.model for each in published_values()}
    assert names & ENCODERS.keys() >= {"h-optimus-0", "uni2-h", "hibou-l", "uni", "virchow2", "gigapath", "phikon-v2"}
    plain = {name.lower().replace("-", "").replace("_", "") for name in names}
    assert len(plain) == len(names)


def named(label: str, name: str, weights: str, role: str = "") -> str:
    return published_name(label, ReportModel(label, role, {"name": name, "weights": weights}, 1))


def test_which_values_a_model_is_compared_with() -> None:
    assert named("teacher", "h-optimus-0", "pretrained") == "h-optimus-0"
    assert named("mine", "hibou-l", "model.safetensors") == ""
    assert named("after", "hibou-l", "pretrained", AFTER) == ""
    assert named("G2L", "hibou-l", "model.safetensors", AFTER) == "g2l"
    assert named("h-optimus-0", "h-optimus-0", "file.safetensors") == "h-optimus-0"
    assert named("h-optimus-0", "h-optimus-0", "scratch") == ""
    assert published_name("UNI2-h", None) == "uni2-h"
    assert value_of("idc", "nobody", "kNN accuracy") is None
