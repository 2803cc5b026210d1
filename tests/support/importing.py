"""`g2l import-features` in this process, and what its stores hold, for the tests of that command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config.tools import ImportConfig
from pipeline.features.importing import FeatureRows
from pipeline.store.store import Store
from stages.import_features import import_features
from stages.reports.extract import Extracted
from support.features import FeatureSlide

Place = tuple[str, int, int]
Rows = dict[Place, tuple[NDArray[Any], NDArray[np.uint8]]]


def run_import(features: Path, out: Path, options: dict[str, Any], **more: Any) -> Extracted:
    return import_features(features, out, ImportConfig.build(options | more))


def places_of(store: Store) -> list[Place]:
    """Slide and corner of every row."""
    plan = store.plan
    names = [plan.slides[i].slide_id for i in plan.slide_of_row()]
    return [(name, x, y) for name, (x, y) in zip(names, plan.coords().tolist(), strict=True)]


def rows_of(store: Store) -> Rows:
    """Embedding and pixels of every row, by slide and corner."""
    features = np.concatenate([store.first.read_embeddings(shard) for shard in range(store.first.num_shards)])
    return {place: (features[i], store.read_pixels(i)) for i, place in enumerate(places_of(store))}


def assert_same_rows(found: Rows, expected: Rows, type_: type[Any] = np.float32) -> None:
    assert found.keys() == expected.keys()
    for key, (embedding, pixels) in expected.items():
        np.testing.assert_array_equal(found[key][0], embedding.astype(type_).astype(np.float32), err_msg=str(key))
        np.testing.assert_array_equal(found[key][1], pixels, err_msg=str(key))


def audit_of(store: Store) -> dict[str, str]:
    return {row.slide_id: row.reason for row in store.plan.audit if row.status != "ok"}


def one_slide(slides: list[FeatureSlide]) -> FeatureSlide:
    return next(s for s in slides if s.name == "s1")


def import_flags(options: dict[str, Any]) -> list[object]:
    """Options as flags of the command."""
    return [
        word for name, value in options.items() if value is not None for word in ("--" + name.replace("_", "-"), value)
    ]


def interrupt_after_a_shard(
    features: Path, out: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import, and press Ctrl-C when features are read for the fourth time: after two slides' proofs and a shard."""
    real, calls = FeatureRows.read, []

    def interrupted(self: FeatureRows, rows: Any) -> NDArray[np.float32]:
        calls.append(rows)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(self, rows)

    with monkeypatch.context() as stop:
        stop.setattr(FeatureRows, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_import(features, out, options, workers=1)
