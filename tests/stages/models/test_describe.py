"""`models`: the table of encoders, and one encoder with the way to its weights."""

import re
from pathlib import Path

import pytest
from support.commands import call_g2l

from pipeline.base.errors import EncoderError
from stages.models.describe import describe_model, models_table


def test_the_table_of_models_names_what_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = models_table()
    for words in ("h-optimus-0", "1,135 M", "1536", "hibou-l", "Apache-2.0", "virchow2", "cls+mean", "h0-mini-mean"):
        assert words in text
    monkeypatch.setattr("stages.models.describe.cached_weights", lambda spec: tmp_path if spec.name == "uni" else None)
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
