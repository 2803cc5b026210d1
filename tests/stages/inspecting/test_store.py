"""A store in words: what is missing of it."""

import re
import shutil
from pathlib import Path

from pipeline.store.store import Store
from stages.inspect import inspect_path


def test_inspect_says_that_a_store_is_half_a_copy(good_store: Path, tmp_path: Path) -> None:
    """It has the whole ledger, so that the shards count as done."""
    store = Store(Path(shutil.copytree(good_store, tmp_path / "store.zarr")))
    assert not re.search("^files ", inspect_path(store.folder), re.MULTILINE)
    store.first.shard_path("embedding", 1).unlink()
    shown = inspect_path(store.folder)
    assert re.search(r"^files +missing or of another size: 1 file of finished shards; g2l verify", shown, re.MULTILINE)
