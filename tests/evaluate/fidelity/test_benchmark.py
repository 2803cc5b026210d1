"""The fidelity benchmark: what asks for it, which models it takes, and the rows that they embed."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.fidelity import OPTIONS, teacher_embeddings
from support.stores import PATCH_PX, WIDTH
from torch import nn

from pipeline.base.errors import ConfigError, G2LError
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.table import EncoderSpec
from pipeline.evaluate.fidelity.benchmark import FidelityBenchmark, same_encoder
from pipeline.evaluate.fidelity.options import FidelityOptions
from pipeline.store.store import Store
from pipeline.student.resolve import NamedModel


def look(store: Store, **options: Any) -> FidelityBenchmark:
    return FidelityBenchmark.look(OPTIONS.model_copy(update={"store": store.first.folder, **options}), workers=1)


def built_from(record: dict[str, Any]) -> BuiltEncoder:
    """An encoder that was built with what a record says."""
    spec = EncoderSpec.from_record(record)
    return BuiltEncoder(cast(Any, nn.Identity()), spec, "test", record["weights_sha256"], 1)


def test_a_teacher_without_a_store_is_refused() -> None:
    assert FidelityBenchmark.is_wanted(FidelityOptions(store=Path("s.zarr"), teacher="t"))
    assert not FidelityBenchmark.is_wanted(OPTIONS)
    with pytest.raises(ConfigError, match="give --store too"):
        FidelityBenchmark.is_wanted(FidelityOptions(teacher="t"))


def test_a_teacher_that_the_store_has_not_is_refused(store: Store) -> None:
    assert look(store, teacher=store.first.name).teacher.name == store.first.name
    with pytest.raises(G2LError, match="nobody"):
        look(store, teacher="nobody")


def test_models_take_patches_of_the_store(store: Store) -> None:
    benchmark = look(store)
    assert benchmark.patch_px == PATCH_PX
    assert benchmark.check_models([NamedModel("m", "any", "scratch", PATCH_PX)]) == []
    with pytest.raises(ConfigError, match=f"large takes patches of 224 px, those of .* have {PATCH_PX}"):
        benchmark.check_models([NamedModel("large", "any", "scratch", 224)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights_sha256", "f" * 64),
        ("embedding", "cls+mean"),
        ("mean", [0.1, 0.2, 0.3]),
        ("std", [1.0, 1.0, 1.0]),
        ("width", WIDTH + 1),
    ],
)
def test_a_teacher_is_known_by_weights_statistics_and_embedding(store: Store, name: str, value: Any) -> None:
    record = store.first.record
    assert same_encoder(record | {"name": "another name", "licence": "none"}, record)
    assert not same_encoder(record | {name: value}, record)


def test_only_the_teachers_embeddings_are_those_of_the_store(store: Store) -> None:
    benchmark, record = look(store), store.first.record
    stored = benchmark.stored_embeddings(built_from(record))
    assert stored is not None
    assert np.array_equal(stored, teacher_embeddings(store, benchmark.rows.all))
    assert benchmark.stored_embeddings(built_from(record | {"weights_sha256": "f" * 64})) is None


def test_the_patches_are_those_of_the_rows_training_rows_first(store: Store) -> None:
    benchmark = look(store, store_rows=5)
    source = benchmark.patch_source()
    assert source is not None
    assert list(source.rows) == [*benchmark.rows.train.tolist(), *benchmark.rows.val.tolist()]
    assert len(source.rows) == 10
    first, again, second = (np.zeros((PATCH_PX, PATCH_PX, 3), np.uint8) for _ in range(3))
    for row, patch in ((source.rows[0], first), (source.rows[0], again), (source.rows[9], second)):
        source.read(row, patch)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_the_key_of_the_patches_follows_rows_and_side(store: Store) -> None:
    keys = []
    for options, patch_px in (({}, 32), ({"store_rows": 5}, 32), ({}, 64)):
        source = look(store, **options).patch_source()
        assert source is not None
        keys.append(source.data_key(patch_px))
    again = look(store).patch_source()
    assert again is not None
    assert again.data_key(32) == keys[0]
    assert all(key != keys[0] for key in keys[1:])
