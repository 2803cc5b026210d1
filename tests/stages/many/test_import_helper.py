"""`import-features` in several processes: the store of one, to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import leftovers
from support.extraction import array_files
from support.features import FeatureSlide, write_trident
from support.importing import import_flags, run_import
from support.launched import MemoryStore, beating_in_a_thread, ended, start_torchrun

from pipeline.base.launched.group import LaunchedGroup
from pipeline.config.tools import ImportConfig
from pipeline.store.store import Store
from stages.import_features import import_features
from stages.many.import_helper import help_import


@pytest.fixture
def features(tmp_path: Path, slides: list[FeatureSlide]) -> Path:
    return write_trident(tmp_path / "job", slides)


@pytest.mark.slow
def test_with_torchrun(features: Path, options: dict[str, Any], tmp_path: Path) -> None:
    run_import(features, tmp_path / "one", options)
    staging = ["--stage-dir", tmp_path / "stage", "--retry-failures"]
    call = ["import-features", features, "--out", tmp_path / "s", *import_flags(options), *staging]
    code, out, err = ended(start_torchrun(*call, processes=3))
    assert code == 0, out + err
    assert array_files(tmp_path / "s") == array_files(tmp_path / "one")
    assert list((tmp_path / "stage").iterdir()) == []
    assert err.count("proven on") + out.count("proven on") <= 2  # of one process: its note and its report
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_leader_and_then_a_helper(features: Path, options: dict[str, Any], tmp_path: Path) -> None:
    run_import(features, tmp_path / "one", options)
    store = MemoryStore()
    leader, out = LaunchedGroup(store, 0, 2), tmp_path / "s"
    with leader.leading():
        import_features(features, out, ImportConfig.build(options), group=leader)
    assert array_files(out) == array_files(tmp_path / "one")

    (out / "shards" / "1.json").unlink()
    del store.values["done/1"], store.values["claim/1"]
    beating = LaunchedGroup(store, 0, 2)
    beating.call(json.loads(store.get("call/1/1")) | {"pending": [1]})
    with beating_in_a_thread(beating):
        help_import(LaunchedGroup(store, 1, 2), out, ImportConfig.build(options))
    assert array_files(out) == array_files(tmp_path / "one")
    assert Store(out).first.pending == []
