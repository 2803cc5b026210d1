"""Published weights: a hub that refuses, lacks or has them (a server on this machine), the cache, and no network."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import timm
from huggingface_hub.utils import _auth
from support.commands import child_environment, run_g2l

from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from pipeline.encoders.hub import (
    PUBLISHED_FILES,
    cached_weights,
    fetch_published,
    page_of,
    redacted,
    repository_of,
    revision_of,
    token_of_environment,
    ways_to_weights,
    weights_here,
)
from pipeline.encoders.table import ENCODERS, named_spec

TOKEN = "hf_" + "Ab3" * 11
BUILDS = """
import sys
from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
for name in sys.argv[1:]:
    try:
        build_encoder(name, "pretrained", 224)
    except EncoderError as error:
        print(error, end="\\f")
"""


class Hub(BaseHTTPRequestHandler):
    """A hub that answers every request of a repository with one status; it remembers the tokens that it was shown."""

    answers: ClassVar[dict[str, tuple[int, str]]] = {}
    seen: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.seen.append(self.headers.get("authorization", ""))
        status, code = next(answer for name, answer in self.answers.items() if name in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(answers: dict[str, tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
    """The hub's address, and the tokens that it sees.

    Args:
        answers: status and code of the error, by what is in the address.
    """
    kind = type("Answering", (Hub,), {"answers": answers, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind.seen
    finally:
        server.shutdown()
        server.server_close()


def builds(names: Iterable[str], tmp_path: Path, **variables: str) -> list[str]:
    """What building each of these encoders says, in a process of its own with an empty cache, which says no more."""
    environment = child_environment() | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"} | variables
    command = [sys.executable, "-c", BUILDS, *names]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    *said, end = result.stdout.split("\f")
    assert end == ""
    return said


REFUSED = {
    "uni2-h": (401, "GatedRepo"),
    "virchow2": (404, "EntryNotFound"),
    "gigapath": (403, "GatedRepo"),
    "hibou-l": (404, "RepoNotFound"),
}


@pytest.mark.slow
def test_a_hub_that_refuses_gives_one_clear_error(tmp_path: Path) -> None:
    pages = {name: ENCODERS[name].source.removeprefix("hf-hub:") for name in REFUSED}
    with hub({pages[name]: answer for name, answer in REFUSED.items()}) as (address, seen):
        answers = builds(REFUSED, tmp_path, HF_ENDPOINT=address, HF_TOKEN=TOKEN)
    for (name, page), said in zip(pages.items(), answers, strict=True):
        assert said.startswith(f"cannot get the weights of {name} from hf-hub:{page} (")
        assert f"Page: https://huggingface.co/{page} (gated: ask for access there, then set HF_TOKEN" in said
        assert "--weights FILE" in said
        assert "HF_HUB_OFFLINE=1" in said
        assert "Traceback" not in said
        assert TOKEN not in said  # it is told to nobody
    assert len(seen) >= len(REFUSED)
    assert all(TOKEN in token for token in seen)  # but used


@pytest.mark.slow
def test_no_hub_at_all_is_told_without_the_client_s_own_lines(tmp_path: Path) -> None:
    (said,) = builds(["gigapath"], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    first, *rest = said.strip().splitlines()
    assert first.startswith("cannot get the weights of gigapath")
    assert rest == ways_to_weights(ENCODERS["gigapath"]).splitlines()


@pytest.mark.slow
def test_offline_only_the_cache_is_looked_at(tmp_path: Path) -> None:
    with hub({"": (200, "")}) as (address, seen):
        (said,) = builds(["h-optimus-0"], tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert said.startswith("cannot get the weights of h-optimus-0")
    assert not seen


GUARDED = """
import sys
def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print("NETWORK", event, arguments)
sys.addaudithook(guard)
from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from stages.models.describe import describe_model, models_table
models_table()
for name in ("uni", "phikon-v2", "hf-hub:owner/none", "resnet18", "vit_small_patch16_224"):
    describe_model(name)
    try:
        build_encoder(name, "pretrained", 224)
    except EncoderError as error:
        print("told", str(error).splitlines()[0])
"""


@pytest.mark.slow
def test_offline_nothing_is_asked_of_a_network(tmp_path: Path) -> None:
    environment = child_environment() | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", GUARDED], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stdout.splitlines() if line.startswith("told")]
    assert len(told) == 5
    assert all("HF_HUB_OFFLINE is set, and the local cache has none" in line for line in told)
    assert "NETWORK" not in result.stdout


@pytest.mark.slow
def test_no_token_is_in_a_traceback_or_in_what_a_command_wrote(tmp_path: Path) -> None:
    with hub({"": (401, "GatedRepo")}) as (address, seen):
        variables = {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        words = ("evaluate", "--models", "uni2-h", "--out", tmp_path / "report")
        result = run_g2l(*words, G2L_TRACEBACK="1", **variables)
    assert any(TOKEN in token for token in seen)
    assert "Traceback" in result.stderr
    assert TOKEN not in result.stdout + result.stderr
    written = [path for path in (tmp_path / "report").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_what_is_in_the_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ENCODERS["hibou-l"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_weights(spec) is None
    folder = tmp_path / "models--histai--hibou-L"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (snapshot / "pytorch_model.bin").write_bytes(b"weights")
    assert cached_weights(spec) == snapshot / "pytorch_model.bin"
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert cached_weights(spec) == snapshot / "model.safetensors"


def put_in_cache(cache: Path, repository: str, name: str, *, revision: str = "main", content: bytes = b"") -> Path:
    """A file as the hub's client keeps it; the commit is called after the revision."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    file = folder / "snapshots" / f"commit-{revision}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(f"commit-{revision}")
    file.write_bytes(content)
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [
        ("gpfm", "majiabo/GPFM", "GPFM.pth"),
        ("hf-hub:majiabo/GPFM", "majiabo/GPFM", "GPFM.pth"),
        ("resnet18", "timm/resnet18.a1_in1k", "model.safetensors"),
        ("uni", "MahmoodLab/UNI", "pytorch_model.bin"),
        ("uni", "MahmoodLab/uni", "pytorch_model.bin"),  # another spelling is another folder of the cache
        ("hf-hub:MahmoodLab/uni", "MahmoodLab/UNI", "model.safetensors"),
    ],
)
def test_pages_keep_their_weights_under_names_of_their_own(cache: Path, name: str, repository: str, file: str) -> None:
    spec = named_spec(name)
    assert weights_here(spec) is None
    assert f"download {file}" in ways_to_weights(spec) or file in PUBLISHED_FILES
    for other in ("model.bin", "other.safetensors", "config.json"):
        put_in_cache(cache, repository, other)
    assert cached_weights(spec) is None
    path = put_in_cache(cache, repository, file)
    assert cached_weights(spec) == weights_here(spec) == fetch_published(spec) == path
    if name == "uni":
        first = put_in_cache(cache, "MahmoodLab/UNI", file)
        assert cached_weights(spec) == fetch_published(spec) == first


def test_another_revision_is_another_file(cache: Path) -> None:
    main, at = named_spec("hf-hub:owner/name"), named_spec("hf-hub:owner/name@v2")
    path = put_in_cache(cache, "owner/name", "model.safetensors")
    assert (cached_weights(main), cached_weights(at)) == (path, None)
    other = put_in_cache(cache, "owner/name", "model.safetensors", revision="v2")
    assert (cached_weights(main), cached_weights(at)) == (path, other)
    of_table = named_spec("hf-hub:MahmoodLab/UNI@v2")
    with pytest.raises(EncoderError, match="the local cache has none"):
        fetch_published(of_table)
    put_in_cache(cache, "MahmoodLab/UNI", "pytorch_model.bin")
    with pytest.raises(EncoderError, match="the local cache has none"):
        fetch_published(of_table)
    assert fetch_published(named_spec("uni"))


PINNED = "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a"
"""Of Virchow's page, as `page_facts` has it."""


def put_commit(cache: Path, commit: str) -> Path:
    """A file of Virchow's page at a commit that no branch names."""
    path = cache / "models--paige-ai--Virchow" / "snapshots" / commit / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("name", ["virchow", "hf-hub:paige-ai/Virchow", "hf-hub:Paige-AI/virchow"])
def test_the_pinned_revision_is_taken_unless_another_is_named(name: str) -> None:
    assert revision_of(named_spec(name)) == PINNED
    assert revision_of(named_spec(f"{name}@main" if "hf-hub" in name else "hf-hub:paige-ai/Virchow@v1")) in (
        "main",
        "v1",
    )
    assert revision_of(named_spec("gigapath-flash")) is None
    assert revision_of(named_spec("hf-hub:owner/name")) is None


def test_a_pinned_revision_comes_before_the_main_one_of_a_cache(cache: Path) -> None:
    spec = named_spec("virchow")
    main = put_in_cache(cache, "paige-ai/Virchow", "model.safetensors")
    assert cached_weights(spec) == fetch_published(spec) == main  # what an earlier version fetched serves offline
    pinned = put_commit(cache, PINNED)
    assert cached_weights(spec) == fetch_published(spec) == pinned
    by_branch = named_spec("hf-hub:paige-ai/Virchow@main")
    assert cached_weights(by_branch) == fetch_published(by_branch) == main
    other = named_spec("hf-hub:paige-ai/Virchow@v1")
    assert cached_weights(other) is None


def test_what_no_page_can_be_called_is_not_cached(cache: Path) -> None:
    name = "hf-hub:a/b@../../x"
    assert weights_here(named_spec(name)) is None
    with pytest.raises(EncoderError, match="cannot get the weights of hf-hub:"):
        build_encoder(name, "pretrained", 224)
    for source in ("hf-hub:", "hf-hub:a/b/c", "hf-hub:a//b"):
        assert weights_here(replace(named_spec(name), source=source)) is None
        with pytest.raises(EncoderError, match="is not the name of a page"):
            named_spec(source)


@pytest.mark.parametrize(
    "names",
    [
        ("model.safetensors", "pytorch_model.bin", "a.safetensors"),
        ("pytorch_model.bin", "a.safetensors"),
        ("open_clip_pytorch_model.bin", "model.pth", "a.safetensors"),
        ("b.safetensors", "a.safetensors", "a.pth"),
        ("b.bin", "a.pth"),
        ("c.bin", "notes.txt"),
        ("notes.txt",),
    ],
)
def test_the_file_of_a_folder_is_the_one_that_timm_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).touch()
    taken: list[Path] = []
    monkeypatch.setattr("timm.models._hub.load_state_dict", lambda path, **_: taken.append(path))
    with contextlib.suppress(RuntimeError):
        timm.models._hub.load_state_dict_from_path(tmp_path)
    assert weights_here(named_spec(f"local-dir:{tmp_path}")) == next(iter(taken), None)


def test_weights_that_are_given_are_those_that_are_used(tmp_path: Path) -> None:
    uni, gpfm = named_spec("uni"), named_spec("gpfm")
    assert weights_here(uni, tmp_path) is None
    assert weights_here(uni, tmp_path / "none.pth") is None
    for name in ("pytorch_model.bin", "model.safetensors", "GPFM.pth"):
        (tmp_path / name).touch()
    assert weights_here(uni, tmp_path) == tmp_path / "model.safetensors"
    assert weights_here(gpfm, tmp_path) == tmp_path / "GPFM.pth"
    assert weights_here(uni, tmp_path / "GPFM.pth") == tmp_path / "GPFM.pth"
    (tmp_path / "GPFM.pth").unlink()
    assert weights_here(gpfm, tmp_path) == tmp_path / "model.safetensors"  # one that was converted


PROXIED = """
import os
import huggingface_hub
from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
for variable, address in (("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTPS_PROXY", "foo:bar")):
    os.environ[variable] = address
    huggingface_hub.close_session()
    for name, weights in (("uni", "pretrained"), ("resnet18", "pretrained"), ("hf-hub:a/b", "given")):
        try:
            build_encoder(name, weights if weights == "pretrained" else WEIGHTS, 224)
        except EncoderError as error:
            print(repr(str(error)))
    del os.environ[variable]
"""


@pytest.mark.slow
def test_a_broken_proxy_gives_the_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROXIED.replace("WEIGHTS", repr(str(tmp_path / "weights.safetensors"))))
    safetensors.torch.save_file({}, tmp_path / "weights.safetensors")
    environment = child_environment() | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    for name in [name for name in environment if name.lower().endswith("_proxy")]:
        del environment[name]
    result = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    assert len(said) == 6
    for line, start in zip(said, ("the weights of uni", "the weights of resnet18", "the config") * 2, strict=True):
        assert line[1:].startswith(f"cannot get {start}")
        assert "Page: https://huggingface.co/" in line
        assert "HF_TOKEN" in line
    assert all("socksio" in line for line in said[:3])
    assert TOKEN not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("uni", "MahmoodLab/UNI"),
        ("hf-hub:MahmoodLab/uni@abc", "MahmoodLab/uni"),
        ("hf-hub:a/b@v1", "a/b"),
        ("resnet18", "timm/resnet18.a1_in1k"),  # the tag that timm takes where none is said
        ("resnet18.tv_in1k", "timm/resnet18.tv_in1k"),
        ("resnet18.no_such_tag", ""),
        ("no_such_model", ""),
        ("legacy_senet154", ""),  # timm has it from an address of its own
        ("local-dir:x", ""),
    ],
)
def test_pages(name: str, repository: str) -> None:
    spec = named_spec(name)
    assert repository_of(spec) == repository
    assert page_of(spec) == (f"https://huggingface.co/{repository}" if repository else "")
    assert ("local-dir:FOLDER" if name.startswith("hf-hub:a/b") else "--weights") in ways_to_weights(spec)


@pytest.mark.parametrize("text", [TOKEN, f"Authorization: Bearer {TOKEN}", "bearer abc.def", f"url?token={TOKEN}&x"])
def test_tokens_are_taken_out(text: str) -> None:
    assert TOKEN not in redacted(text)
    assert "<token>" in redacted(text)
    assert "abc.def" not in redacted(text)


def test_the_token_of_the_environment_is_taken_out_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "plain-secret")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "earlier-secret")
    assert redacted("refused: plain-secret, earlier-secret") == "refused: <token>, <token>"
    with pytest.raises(EncoderError) as caught:
        build_encoder("hf-hub:owner/plain-secret", "pretrained", 64)
    assert "plain-secret" not in str(caught.value)


@pytest.mark.parametrize(("new", "old"), [("a", "b"), ("", "b"), (" a\n", ""), ("", ""), (" ", "b")])
def test_the_token_is_the_one_that_the_client_takes_from_the_environment(
    new: str, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", new)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", old)
    assert token_of_environment() == (_auth._get_token_from_environment() or "")


def test_other_words_are_left() -> None:
    words = "401 Client Error: hf-hub:owner/name at half_precision"
    assert redacted(words) == words
