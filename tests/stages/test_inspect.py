"""`inspect` and `models`: what they say of good and of damaged outputs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import call_g2l
from support.extraction import TEACHER
from support.inspected import begun_reproduction, begun_study

from pipeline.base.errors import ConfigError, EncoderError, G2LError, PlanError, StoreError
from pipeline.cohort.plan import read_plan, write_plan
from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.comparison_file import write_comparisons
from pipeline.report.content import Interval
from pipeline.store.store import Store
from stages.inspect import describe_model, inspect_path, models_table


def test_inspect_says_what_it_is(good_store: Path) -> None:
    shown = inspect_path(good_store)
    for words in (TEACHER, "3 of 3 done", "24 ok", "jpegxl", "float16", "2 of 2 cases"):
        assert words in shown
    assert "64 px at 0.5 um/px" in inspect_path(good_store.with_name("plan.h5"))


def test_inspect_says_that_a_store_is_half_a_copy(good_store: Path, tmp_path: Path) -> None:
    """It has the whole ledger, so that the shards count as done."""
    store = Store(Path(shutil.copytree(good_store, tmp_path / "store.zarr")))
    assert not re.search("^files ", inspect_path(store.folder), re.MULTILINE)
    store.first.shard_path("embedding", 1).unlink()
    shown = inspect_path(store.folder)
    assert re.search(r"^files +missing or of another size: 1 file of finished shards; g2l verify", shown, re.MULTILINE)


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


def test_inspect_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(G2LError, match="no plan, store, run, exported student, study or reproduction"):
        inspect_path(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(G2LError, match="not a readable plan"):
        inspect_path(tmp_path / "file")
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match="not a store"):
        inspect_path(tmp_path)


def test_inspect_refuses_a_damaged_student(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "projector.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(EncoderError, match=r"config.json: architecture is missing"):
        inspect_path(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "x", "pretrained_cfg": {"input_size": [3, 8, 8]}}')
    with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector of an exported student"):
        inspect_path(tmp_path)


def test_a_study_says_how_far_it_has_come(tmp_path: Path) -> None:
    folder = begun_study(tmp_path / "study")
    shown = inspect_path(folder)
    for words in ("g2l ablate", "loss log-sum", "2 begun, 1 finished, 1 scored", "run g2l ablate again"):
        assert words in shown
    assert re.search(r"settings +2\n", shown)
    (folder / "table.csv").write_text("setting\n")
    assert re.search(r"tables +table\.csv$", inspect_path(folder), re.MULTILINE)
    (folder / "study.json").write_text('{"command": "ablate"}')
    with pytest.raises(ConfigError, match=r"study\.json: damaged"):
        inspect_path(folder)


def test_a_reproduction_says_what_came_out(tmp_path: Path) -> None:
    folder = begun_reproduction(tmp_path / "bach")
    assert "no: run g2l reproduce again" in inspect_path(folder)
    measured = Interval(0.5, 0.4, 0.6)
    write_comparisons(
        folder / "comparison.csv",
        [
            Comparison("bach", "accuracy", "ours", measured, None, 0.02, "not comparable", "no published value", ""),
            Comparison("bach", "accuracy", "", None, None, 0.02, "not comparable", "", ""),
        ],
    )
    shown = inspect_path(folder)
    assert re.search(r"set +bach\n", shown)
    assert "1 not comparable" in shown
    assert re.search(r"accuracy +ours +0\.5000 +- +not comparable", shown)
    (folder / "reproduce.toml").write_text("reproduce = 1")
    with pytest.raises(ConfigError, match=r"reproduce\.toml: damaged"):
        inspect_path(folder)


@pytest.mark.parametrize("kind", ["CSV", "folder"])
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.csv"
    if kind == "CSV":
        path.write_text("slide_id,path\na,a.svs\n")
        with pytest.raises(PlanError, match="HDF5"):
            inspect_path(path)
    else:
        path.mkdir()
    with pytest.raises(
        PlanError, match=r"m\.csv: not a readable plan .*`g2l plan` makes one from a manifest"
    ) as caught:
        read_plan(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "errno" not in str(caught.value)


def test_the_table_of_models_names_what_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = models_table()
    for words in ("h-optimus-0", "1,135 M", "1536", "hibou-l", "Apache-2.0", "virchow2", "cls+mean", "h0-mini-mean"):
        assert words in text
    monkeypatch.setattr("stages.inspect.cached_weights", lambda spec: tmp_path if spec.name == "uni" else None)
    cached = [line.split()[0] for line in models_table().splitlines() if re.search(r"(yes|no) +yes", line)]
    assert cached == ["uni"]


def test_one_model_comes_with_the_way_to_its_weights() -> None:
    said = describe_model("uni2-h")
    for words in (
        "681.0 M",
        "1536 dimensions",
        "https://huggingface.co/MahmoodLab/UNI2-h",
        "gated: ask for access",
        "HF_TOKEN",
        "--weights FILE",
        "HF_HUB_OFFLINE=1",
    ):
        assert words in said
    assert "as its own configuration says" in describe_model("resnet18.a1_in1k")
    assert "https://huggingface.co/owner/name" in describe_model("hf-hub:owner/name")
    by_name, by_address = describe_model("openmidnight-1.1"), describe_model("hf-hub:medarc/OpenMidnight-1.1")
    assert "--teacher hf-hub:medarc/OpenMidnight-1.1" in " ".join(by_name.split())
    assert "openmidnight-1.1" in by_address
    assert "https://huggingface.co/medarc/OpenMidnight-1.1" in by_address
    with pytest.raises(EncoderError, match="no encoder is called nope"):
        describe_model("nope")


def test_a_model_in_a_folder_is_there_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"nope: no such folder"):
        describe_model(f"local-dir:{tmp_path}/nope")
    with pytest.raises(EncoderError, match=r"no config.json is in this folder"):
        describe_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    assert re.search("file +no", describe_model(f"local-dir:{tmp_path}"))
    assert "Name the folder" in describe_model(f"local-dir:{tmp_path}")
    (tmp_path / "model.safetensors").touch()
    assert re.search(f"file +{tmp_path}/model.safetensors$", describe_model(f"local-dir:{tmp_path}"))


def test_the_table_lists_what_is_left_out_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "Not in the table" not in models_table()
    everything = models_table(everything=True)
    assert "Not in the table:" in everything
    assert "rudolfv2-s" in everything
    code, said, _ = call_g2l("models", "--all")
    assert (code, said) == (0, everything + "\n")


def test_a_model_says_the_revision_that_is_taken() -> None:
    assert re.search(r"revision +b[0-9a-f]{39} \(pinned; ", describe_model("h-optimus-0"))
    assert re.search(r"revision +not pinned: ", describe_model("gigapath-flash"))


def test_a_model_that_states_no_mpp_says_so() -> None:
    assert "224 px at an unstated number of um/px" in describe_model("distillpath-ks16-virchow2")


def test_an_encoder_that_is_left_out_is_described() -> None:
    for name in ("rudolfv2", "hf-hub:Aignostics/RudolfV-2"):
        said = describe_model(name)
        assert "remote code is not run" in said
        assert "can be scored (g2l evaluate --slides --features)" in said
