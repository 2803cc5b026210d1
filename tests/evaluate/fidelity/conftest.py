"""The store that the tests of fidelity share."""

import pytest
from support.stores import make_store

from pipeline.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 training rows of three cases and 40 held-out ones of five."""
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr", train=(20, 20, 20), val=(8, 8, 8, 8, 8))
