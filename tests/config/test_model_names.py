"""Models and folders as the user names them: "@" and "=" in paths, and paths that records hold."""

import os
import unicodedata
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.model_names import (
    ModelName,
    absolute_folder,
    absolute_model,
    as_on_disk,
    recorded_path,
    split_choice,
    split_folder,
    split_model,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`user@domain/run`, `a=b/run@2`, `plain`, and `user@domain/w.pth`."""
    for name in ("user@domain/run", "a=b/run@2", "plain"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "user@domain" / "w.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user@domain/run", ("", "user@domain/run", "")),
        ("user@domain/run@before", ("", "user@domain/run", "before")),
        ("after=user@domain/run@teacher", ("after", "user@domain/run", "teacher")),
        ("local-dir:user@domain/run", ("", "local-dir:user@domain/run", "")),
        ("vit_base@user@domain/w.pth", ("", "vit_base", "user@domain/w.pth")),
        ("x=vit_base@user@domain/gone.pth", ("x", "vit_base", "user@domain/gone.pth")),
        ("a=b/run@2", ("", "a=b/run@2", "")),
        ("a=b/run@2@before", ("", "a=b/run@2", "before")),
        ("l=a=b/run@2", ("l", "a=b/run@2", "")),
        ("/gone/user@domain/run", ("", "/gone/user@domain/run", "")),
        ("/gone/user@domain/run@before", ("", "/gone/user@domain/run", "before")),
        ("plain@befor", ("", "plain", "befor")),
        ("uni", ("", "uni", "")),
        ("teacher=h-optimus-0@f.safetensors", ("teacher", "h-optimus-0", "f.safetensors")),
        ("hf-hub:owner/name@f.safetensors", ("", "hf-hub:owner/name", "f.safetensors")),
    ],
)
def test_a_name_is_taken_apart(home: Path, text: str, expected: tuple[str, str, str]) -> None:
    assert split_model(text) == ModelName(*expected)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("uni@", "nothing follows the @"),
        ("x=uni@", "nothing follows the @"),
        ("hf-hub:owner/name@", "nothing follows the @"),
        ("@", "no encoder before the @"),
        ("@f.pth", "no encoder before the @"),
        ("x=@f.pth", "no encoder before the @"),
        ("uni=", "nothing follows the ="),
    ],
)
def test_an_unset_variable_in_a_name_is_told(home: Path, text: str, missing: str) -> None:
    for parse in (split_model, absolute_model):
        with pytest.raises(ConfigError, match=missing):
            parse(text)


def test_an_unset_variable_behind_a_folder_or_file_is_told(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x=: nothing follows the ="):
        split_folder("x=")
    with pytest.raises(ConfigError, match=r"^w\.pth::: nothing follows the ::"):
        split_choice(Path("w.pth::"))
    for name in ("uni@", "x=", "w.pth::"):
        Path(name).mkdir()
    (Path("uni@") / "run.json").write_text("{}")
    assert split_model("uni@") == ModelName("", "uni@", "")
    assert split_folder("x=") == ("", Path("x="))
    assert split_choice(Path("w.pth::")) == (Path("w.pth::"), "")


def test_folders_of_features(home: Path) -> None:
    assert split_folder("a=b") == ("", Path("a=b"))
    assert split_folder("x=a=b") == ("x", Path("a=b"))
    assert split_folder("/data/a=b") == ("", Path("/data/a=b"))
    assert absolute_folder("x=plain") == f"x={home / 'plain'}"


def test_absolute_models_are_the_same_models(home: Path) -> None:
    assert absolute_model("l=user@domain/run@before") == f"l={home}/user@domain/run@before"
    assert absolute_model("vit@user@domain/w.pth") == f"vit@{home}/user@domain/w.pth"
    assert absolute_model("local-dir:plain") == f"local-dir:{home}/plain"
    for same in ("uni", "x=uni@scratch", "hf-hub:owner/name"):
        assert absolute_model(same) == same
    os.chdir("/")
    assert split_model(f"l={home}/user@domain/run@before") == ModelName("l", f"{home}/user@domain/run", "before")


def test_paths_of_old_records_are_found_from_other_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in `home` as `--out runs/a --weights w/x.pth`; read from elsewhere, also after all was moved together."""
    (home / "runs" / "a").mkdir(parents=True)
    (home / "w").mkdir()
    (home / "w" / "x.pth").write_bytes(b"")
    record = home / "runs" / "a" / "config.toml"
    assert recorded_path("w/x.pth", record, "runs/a") == Path("w/x.pth")
    monkeypatch.chdir("/")
    assert recorded_path("w/x.pth", record, "runs/a") == home / "w" / "x.pth"
    assert recorded_path("w/gone.pth", record, "runs/a") == Path("w/gone.pth")
    assert recorded_path("/abs/gone.pth", record) == Path("/abs/gone.pth")
    (home / "runs" / "a" / "y.pth").write_bytes(b"")
    assert recorded_path("y.pth", record) == home / "runs" / "a" / "y.pth"


NFC, NFD = (unicodedata.normalize(form, "Séance é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("typed", "there"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize(
    "text",
    ["{}", "{}/w.pt", "L={}", "L=local-dir:{}", "local-dir:{}@{}/w.pt", "test_vit@{}/w.pt", "{}/w.pt::ema", "{}@after"],
)
def test_accents_are_spelled_as_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, there: str, text: str
) -> None:
    (tmp_path / there).mkdir()
    (tmp_path / there / "w.pt").touch()
    monkeypatch.chdir(tmp_path)
    for name in (typed, there):
        found = as_on_disk(text.replace("{}", name))
        assert found == text.replace("{}", there)


def test_accents_of_what_is_not_there_or_could_be_two_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_on_disk(NFC) == NFC
    (tmp_path / NFC).touch()
    (tmp_path / NFD).touch()
    if len(list(tmp_path.iterdir())) == 2:  # not where the file system takes both for one
        mixed = NFC.replace("é", "e\u0301", 1)
        assert [as_on_disk(name) for name in (NFC, NFD, mixed)] == [NFC, NFD, mixed]
    assert as_on_disk("plain") == "plain"
