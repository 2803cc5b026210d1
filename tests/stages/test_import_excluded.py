"""Import without the cases of a benchmark: nothing of them is read, and the store goes on with the same ones only."""

from pathlib import Path
from typing import Any

import pytest
from support.commands import call_g2l
from support.extraction import array_files
from support.features import FeatureSlide, changed, write_trident
from support.importing import assert_same_rows, import_flags, one_slide, places_of, rows_of, run_import

from pipeline.base.errors import PlanError, StoreError
from pipeline.config.base import read_options
from pipeline.disk.tables import read_table
from pipeline.store.store import Store


def audited(store: Path) -> dict[str, str]:
    return {row["slide_id"]: row["status"] for _, row in read_table(store / "audit.csv", (), ",")[0]}


def test_slides_of_listed_cases_are_left_out_and_no_failure(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """Those of a damaged file as well, for nothing of it is read; a repeated call sees that all is done."""
    bad = changed(slides, "s1", features=one_slide(slides).features[:, :5])
    features, out, listed = write_trident(tmp_path / "features", bad), tmp_path / "s.zarr", tmp_path / "listed.txt"
    listed.write_text("# of a benchmark\ns1\nsomeone\n")
    command = ["import-features", features, "--out", out, *import_flags(options), "--exclude-cases", listed]
    code, said, errors = call_g2l(*command)
    assert code == 0, errors
    assert "--exclude-cases: 1 slide of 1 case left out of the plan, by 2 listed" in errors
    assert "of 1 listed there is no slide: someone" in errors
    assert audited(out) == {"s0": "ok", "s1": "excluded"}
    store = Store(out)
    assert {name for name, _, _ in places_of(store)} == {"s0"}
    assert [(row.slide_id, row.status) for row in store.plan.audit] == [("s0", "ok"), ("s1", "excluded")]
    assert read_options(out / "config.toml", "import-features")["exclude_cases"] == [str(listed)]
    code, said, errors = call_g2l("import-features", "--config", out / "config.toml")
    assert (code, "nothing was left to do" in said, "looking at features" in errors) == (0, True, False), errors
    only = run_import(write_trident(tmp_path / "one", bad[:1]), tmp_path / "one.zarr", options).store
    assert_same_rows(rows_of(only), rows_of(store))


def test_a_store_is_continued_with_the_same_cases_only(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features, out, listed = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr", tmp_path / "listed.txt"
    listed.write_text("s1\n")
    without = options | {"exclude_cases": [str(listed)]}
    run_import(features, out, without)
    Store(out).first.ledger.path(0).unlink()
    before = array_files(out)
    with pytest.raises(StoreError, match=r"(?s)is not continued.*s1: no longer excluded"):
        run_import(features, out, options)
    assert array_files(out) == before
    assert run_import(features, out, without).num_new_rows == 8
    listed.write_text("s0\ns1\n")
    with pytest.raises(StoreError, match="s0: excluded now"):
        run_import(features, out, without)
    with pytest.raises(PlanError, match=r"(?s)no slide has a patch to sample.*s0: --exclude-cases: s0 is in listed"):
        run_import(features, tmp_path / "none.zarr", without)
