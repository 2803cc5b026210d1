"""`publish` against a stand-in for the hub: nothing is sent but what was typed, and then all of it, to the byte."""

from pathlib import Path

import huggingface_hub
import pytest
from support.commands import call_g2l, run_g2l
from support.hub import TOKEN, StandIn, stand_in_hub

from pipeline.base.errors import ConfigError, ExportError
from pipeline.config.tools import PublishConfig
from stages.publishing import upload
from stages.publishing.publish import publish_student, require_typed


def wanted(**values: object) -> PublishConfig:
    return PublishConfig.build({"repo": "lab/student", "i_may_share": True, **values})


@pytest.mark.slow
def test_the_command_sends_every_file_to_a_private_repository(student: Path, tmp_path: Path) -> None:
    with stand_in_hub() as hub:
        variables = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home"),
        }
        words = ("publish", student, "--repo", "lab/student", "--i-may-share")
        dry = run_g2l(*words, **variables)
        assert dry.returncode == 0, dry.stderr
        assert "Nothing was sent" in dry.stdout
        assert hub.asked == []
        done = run_g2l(*words, "--yes", **variables)
        assert done.returncode == 0, done.stderr
        assert "(private)" in done.stdout
        assert f"Sent: {hub.url}/lab/student/commit/1" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
    assert hub.private == {"lab/student": True}
    files = {path.relative_to(student).as_posix(): path.read_bytes() for path in student.rglob("*") if path.is_file()}
    assert b"hf download OWNER/NAME --local-dir student" in files["README.md"]
    files["README.md"] = files["README.md"].replace(b"hf download OWNER/NAME", b"hf download lab/student")
    assert hub.files == {"lab/student": files}
    assert {token for _, _, token in hub.asked} == {f"Bearer {TOKEN}"}


def test_public_must_be_typed_and_agree_with_what_is_there(student: Path, hub: StandIn) -> None:
    hub.private = {"lab/student": False, "lab/hidden": True}
    with pytest.raises(ExportError, match="is there, and is public"):
        publish_student(student, wanted(yes=True))
    with pytest.raises(ExportError, match="is there, and is private"):
        publish_student(student, wanted(yes=True, public=True, repo="lab/hidden"))
    assert hub.files == {}
    assert "public: everybody sees it" in publish_student(student, wanted(yes=True, public=True))
    assert set(hub.files) == {"lab/student"}


def test_nothing_is_asked_of_the_hub_without_a_token_or_a_yes(
    student: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = publish_student(student, wanted())
    assert "Nothing was sent. Add --yes" in said
    total = sum(path.stat().st_size for path in student.rglob("*") if path.is_file())
    total += len("lab/student") - len("OWNER/NAME")  # the card names it
    assert f"{total:,} bytes, to lab/student (private)" in said
    with pytest.raises(ExportError, match=r"(?s)forbid to share it.*Teacher: .*--i-may-share"):
        publish_student(student, wanted(i_may_share=False, yes=True))
    monkeypatch.delenv("HF_TOKEN")
    saved = tmp_path / "saved login"
    saved.write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(saved))
    assert huggingface_hub.get_token() == TOKEN  # the client itself would take it
    with pytest.raises(ConfigError, match=r"no access token in the environment\. Set HF_TOKEN"):
        publish_student(student, wanted(yes=True))
    monkeypatch.setattr(upload, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        publish_student(student, wanted(yes=True))
    assert hub.asked == []


def test_the_tokens_earlier_name_is_taken_after_it(
    student: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "an earlier one")
    publish_student(student, wanted(yes=True))
    assert {token for _, _, token in hub.asked} == {f"Bearer {TOKEN}"}
    hub.asked.clear()
    monkeypatch.setenv("HF_TOKEN", "")
    publish_student(student, wanted(yes=True))
    assert {token for _, _, token in hub.asked} == {"Bearer an earlier one"}


def test_a_refusal_of_the_hub_is_one_error_without_the_token(student: Path, hub: StandIn) -> None:
    hub.refuses = 403
    with pytest.raises(ExportError, match="lab/student: the hub did not take it") as caught:
        publish_student(student, wanted(yes=True))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("repo", ["student", "a/b/c", "", "a/b c", "https://huggingface.co/a/b"])
def test_a_repository_is_named_in_full(student: Path, repo: str) -> None:
    with pytest.raises(ConfigError, match="Give OWNER/NAME"):
        publish_student(student, wanted(repo=repo))


def test_a_file_cannot_say_yes(student: Path, tmp_path: Path) -> None:
    require_typed({"repo": "a/b"})
    for name in ("yes", "public", "i_may_share"):
        (tmp_path / "g2l.toml").write_text(f'[publish]\nrepo = "a/b"\n{name} = true\n')
        code, _, errors = call_g2l("publish", student, "--config", tmp_path / "g2l.toml")
        assert code == 1
        assert f"[publish] {name}: a file cannot say this" in errors
