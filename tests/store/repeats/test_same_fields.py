"""Fields that are there twice: those of a plain comparison of all pixels, over shards and slides; plain ones apart."""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from support.stores import make_patches, make_store

from pipeline.store.repeats.same_fields import SameField, find_same_fields, same_field_words
from pipeline.store.store import Store
from stages.verify import verify_store

ROWS = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Rows 3, 20 and 50 show one field, 7 and 8 another, three are of one colour; 60 is 3 but for one grey level."""
    patches = make_patches(ROWS)
    for row, of in ((20, 3), (50, 3), (60, 3), (8, 7)):
        patches[row] = patches[of]
    patches[60, 5, 5, 1] ^= 1
    patches[[1, 30, 31]] = 240
    return make_store(tmp_path_factory.mktemp("same") / "s.zarr", patches=patches)


def test_the_fields_are_those_of_comparing_all_pixels(store: Store) -> None:
    by_pixels: dict[bytes, list[int]] = defaultdict(list)
    for row in range(ROWS):
        by_pixels[store.read_pixels(row).tobytes()].append(row)
    expected = sorted(tuple(rows) for rows in by_pixels.values() if len(rows) > 1)
    fields = find_same_fields(store)
    assert [found.rows for found in fields] == expected == [(1, 30, 31), (3, 20, 50), (7, 8)]
    assert [found.is_plain for found in fields] == [True, False, False]


def test_verify_names_them_and_calls_the_store_good(store: Store) -> None:
    text, code = verify_store(store.folder, None, 0, "cpu")
    assert code == 0
    assert "note: 2 rows show one colour that an earlier row shows as well" in text
    assert "note: 3 rows show the field of an earlier row, pixel for pixel; of 2 such fields 1 is on several" in text
    assert "  row 20 (slide_1 at 128, 32) shows row 3 (slide_0 at 96, 0)" in text


def test_long_lists_end_and_good_stores_have_none(store: Store) -> None:
    lines = same_field_words(store, [SameField((i, i + 20), is_plain=False) for i in range(7)])
    assert (len(lines), lines[-1]) == (7, "  and 2 more")
    assert same_field_words(store, []) == []


def test_unfinished_shards_and_stores_without_pixels_are_passed_over(store: Store, tmp_path: Path) -> None:
    half = Store(Path(shutil.copytree(store.folder, tmp_path / "half.zarr")))
    half.first.ledger.path(half.first.num_shards - 1).unlink()
    assert all(max(found.rows) < ROWS - 16 for found in find_same_fields(half))
    without = make_store(tmp_path / "w.zarr", pixels="none")
    assert find_same_fields(without) == []
    assert np.array_equal(half.read_pixels(3), half.read_pixels(20))
