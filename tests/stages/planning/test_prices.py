"""What a patch costs: by the options of a plan or of stage one, and by the rate of a store."""

import shutil
from pathlib import Path

import pytest
from support.plans import budget_of
from support.stores import make_store

from pipeline.base.errors import ConfigError
from pipeline.cohort.draws.budget import Prices
from pipeline.config.stages import ExtractConfig
from pipeline.store.create import open_round
from pipeline.store.store import Store
from stages.planning.prices import prices_of


def test_a_patch_costs_what_the_plan_or_its_stage_one_says() -> None:
    extract = ExtractConfig.build({"teacher": "uni", "dtype": "float32", "views": 3, "pixels": "jpeg"})
    assert prices_of(budget_of(budget="9")) == prices_of(budget_of(budget="1GB")) == Prices(3072, "jpegxl")
    assert prices_of(budget_of(budget="1GB"), extract) == Prices(1024 * 4 * 3, "jpeg")
    said = budget_of(budget="1GB", budget_width=10, budget_pixels="none")
    assert (prices_of(said), prices_of(said, extract)) == (Prices(20, "none"), Prices(120, "none"))
    assert prices_of(budget_of(budget="1h", rate=2.5), extract).patches_a_second == 2.5
    unknown = ExtractConfig.build({"teacher": "lcnet_050"})
    with pytest.raises(ConfigError, match="--budget 1GB: say with --budget-width how wide"):
        prices_of(budget_of(budget="1GB"), unknown)


def test_a_store_says_the_rate(good_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Store(good_store).first.ledger
    wanted = ledger.num_rows / ledger.seconds()
    assert prices_of(budget_of(budget="1h", rate_from=good_store)).patches_a_second == pytest.approx(wanted)
    assert f"the rate is that of {ledger.num_rows} patches, in which the start counts" in capsys.readouterr().err
    shutil.copytree(good_store, tmp_path / "s.zarr")
    for entry in (tmp_path / "s.zarr" / "shards").iterdir():
        entry.unlink()
    with pytest.raises(ConfigError, match="nothing there is finished"):
        prices_of(budget_of(budget="1h", rate_from=tmp_path / "s.zarr"))


def test_the_rate_of_a_store_is_that_of_patches_with_their_rounds_of_views(tmp_path: Path) -> None:
    """64 patches in 64 s and a view of them in 128 s are a patch in 3 s; a round that is not finished is refused."""
    store = make_store(tmp_path / "s.zarr")
    first, timed = store.first, budget_of(budget="1h", rate_from=tmp_path / "s.zarr")
    made = open_round(first, first.plan, 1, {"views_seed": 0}, {})
    for shard, entry in list(first.ledger.entries()):
        assert entry is not None
        first.ledger.write(shard, entry | {"seconds": 16.0})
        with pytest.raises(ConfigError, match=r"view 1 is not finished, .* patches with all their views"):
            prices_of(timed)
        made.ledger.write(shard, entry | {"seconds": 32.0})
    assert prices_of(timed).patches_a_second == pytest.approx(1 / 3)
    first.ledger.forget(3)  # its rate is that of what is done, and rounds count whole
    assert prices_of(timed).patches_a_second == pytest.approx(1 / 3)


def test_imported_features_say_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "s.zarr")
    monkeypatch.setattr("stages.planning.prices.made_with", lambda _: "import-features")
    with pytest.raises(ConfigError, match="its features were imported, so it does not say the rate"):
        prices_of(budget_of(budget="1h", rate_from=tmp_path / "s.zarr"))
