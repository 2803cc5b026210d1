"""The recipe of a plan and of a store, and what departs from it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from stages.inspect import inspect_path


def test_inspect_names_the_recipe_and_what_departs_from_it(good_store: Path, tmp_path: Path) -> None:
    plan, place = read_plan(good_store.with_name("plan.h5")), tmp_path / "plan.h5"
    assert not re.search("^recipe ", inspect_path(good_store), re.MULTILINE)
    write_plan(replace(plan, config=plan.config.model_copy(update={"recipe": "paper"})), place)
    assert re.search(r"recipe +paper\nnot the recipe's +plan --patch-px 64, not 224\n", inspect_path(place))
    store = Path(shutil.copytree(good_store, tmp_path / "store.zarr"))
    (store / "config.toml").write_text('[extract-teacher]\nteacher = "t"\nrecipe = "paper"\n')
    shown = inspect_path(store)
    assert re.search(r"recipe +paper\n", shown)
    assert "plan --patch-px 64, not 224" in shown
    assert "extract-teacher --views 1, not 11" in shown
    (store / "config.toml").write_text("recipe = ")
    with pytest.raises(ConfigError, match=r"config\.toml: damaged"):
        inspect_path(store)
