"""Protocols: what each is, that g2l's is what it was, and that PathoROB's is scikit-learn's as published."""

import warnings
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.evaluate.folds import given_split, group_folds
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.probes import eva_probe
from pipeline.evaluate.probes.linear_probe import linear_probe, probe_task
from pipeline.evaluate.probes.probe_choice import ProbeProtocol, ProtocolName
from pipeline.evaluate.probes.protocols import (
    PATHOROB_STRENGTHS,
    PROTOCOLS,
    linear_in_words,
    probe_protocol,
    protocol_in_words,
)

Labelled = tuple[NDArray[np.float32], NDArray[np.str_], NDArray[np.str_]]


def overlapping(num_rows: int = 150, num_classes: int = 3) -> Labelled:
    """Embeddings, labels and cases."""
    rng = np.random.default_rng(0)
    truth = rng.integers(num_classes, size=num_rows)
    embeddings = rng.normal(size=(num_rows, 8)) + rng.normal(size=(num_classes, 8))[truth] * 0.7
    cases = rng.integers(20, size=num_rows)
    return embeddings.astype(np.float32), np.char.add("c", truth.astype(str)), np.char.add("case ", cases.astype(str))


def test_the_table_has_what_the_option_takes() -> None:
    assert set(PROTOCOLS) == set(get_args(ProtocolName))
    for name, named in PROTOCOLS.items():
        assert named.source
        assert PatchOptions.build({"protocol": name}).protocol == name
        protocol = probe_protocol(name, "auroc", None)
        assert protocol.name == name
        assert f"Protocol of the linear probe: {name} ({named.source})." in protocol_in_words(protocol)
        assert protocol_in_words(protocol).endswith("Numbers of two protocols are not compared.")
        assert linear_in_words(protocol)


def test_the_default_is_what_earlier_versions_call_balanced() -> None:
    assert PatchOptions().protocol == "g2l"
    assert PatchOptions.build({"protocol": "balanced"}) == PatchOptions()
    assert probe_protocol("g2l", "auroc", 0.3) == ProbeProtocol((0.3,), "auroc")


@pytest.mark.parametrize("name", ["eva", "pathorob"])
def test_a_published_protocol_takes_no_c(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--probe-c 0.1: the protocol {name} says how"):
        probe_protocol(name, "auroc", 0.1)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_pathorobs_probe_is_scikit_learns_on_the_split(num_classes: int) -> None:
    embeddings, labels, cases = overlapping(num_classes=num_classes)
    number = np.array([int(case.split()[1]) for case in cases])
    splits = np.where(number < 10, "train", np.where(number < 15, "val", "test"))
    protocol = probe_protocol("pathorob", "balanced_accuracy", None)
    task = probe_task(labels, cases, given_split(labels, cases, splits, "x"), 0, protocol)
    found = linear_probe(embeddings, task)
    best, best_score = None, -1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for power in np.linspace(-8, 4, 15):
            model = LogisticRegression(C=10**power, random_state=0)
            model.fit(embeddings[splits == "train"], labels[splits == "train"])
            score = balanced_accuracy_score(labels[splits == "val"], model.predict(embeddings[splits == "val"]))
            if score > best_score:
                best, best_score = model, score
    assert best is not None
    test = splits == "test"
    np.testing.assert_allclose(found.probabilities[test], best.predict_proba(embeddings[test]), atol=1e-3)
    assert found.strengths == pytest.approx((best.C,))
    assert found.choices[0].curve.max() == pytest.approx(best_score)
    assert len(PATHOROB_STRENGTHS) == 15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva", "pathorob"])
def test_rows_that_are_scored_decide_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva_probe, "MAX_STEPS", 30)
    monkeypatch.setattr(eva_probe, "RUNS", 2)
    embeddings, labels, cases = overlapping()
    folds = group_folds(labels, cases, 3, 0)
    task = probe_task(labels, cases, folds, 0, probe_protocol(name, "balanced_accuracy", None))
    found, again = linear_probe(embeddings, task), linear_probe(embeddings, task)
    assert np.array_equal(found.probabilities, again.probabilities)
    assert np.allclose(found.probabilities.sum(1), 1)
    task.truth[folds[0].test] = (task.truth[folds[0].test] + 1) % 3
    changed = linear_probe(embeddings, task)
    assert np.array_equal(changed.probabilities[folds[0].test], found.probabilities[folds[0].test])
    assert not np.array_equal(changed.probabilities[folds[1].test], found.probabilities[folds[1].test])
    assert len(found.runs) == (2 if name == "eva" else 0)
    assert len(found.choices) == (6 if name == "eva" else 3)


def test_without_validation_rows_a_published_protocol_is_refused() -> None:
    labels = np.array(["a", "b"] * 20)
    cases = np.array(["case 1"] * 20 + ["case 2"] * 20)
    with pytest.raises(BenchmarkError, match="the protocol eva chooses by validation rows"):
        probe_task(labels, cases, group_folds(labels, cases, 2, 0), 0, probe_protocol("eva", "auroc", None))
