"""Published weights: a hub that refuses, lacks or has them (a server on this machine), the cache, and no network."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import child_environment, run_g2l

from pipeline.encoders import ENCODERS, named_spec
from pipeline.errors import EncoderError
from pipeline.hub import cached_weights, page_of, redacted, repository_of, ways_to_weights
from pipeline.models import build_encoder

TOKEN = "hf_" + "Ab3" * 11
BUILD = "from pipeline.models import build_encoder; build_encoder({name!r}, 'pretrained', 224)"


class Hub(BaseHTTPRequestHandler):
    """A hub that answers every request with one status; it remembers the tokens that it was shown."""

    status = 401
    headers_of_answer: ClassVar[dict[str, str]] = {}
    seen: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.seen.append(self.headers.get("authorization", ""))
        self.send_response(self.status)
        for name, value in self.headers_of_answer.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(status: int, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """The hub's address, and the tokens that it sees."""
    kind = type("Answering", (Hub,), {"status": status, "headers_of_answer": headers, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind.seen
    finally:
        server.shutdown()
        server.server_close()


def build(name: str, tmp_path: Path, **variables: str) -> str:
    """What building an encoder says, in a process of its own with an empty cache."""
    environment = child_environment() | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"} | variables
    program = (
        "import sys\nfrom pipeline.errors import EncoderError\ntry:\n    " + BUILD.format(name=name) + "\n"
        "except EncoderError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=90
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "GatedRepo"),
        pytest.param(404, "EntryNotFound", marks=pytest.mark.slow),
        pytest.param(403, "GatedRepo", marks=pytest.mark.slow),
        pytest.param(404, "RepoNotFound", marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_refuses_gives_one_clear_error(tmp_path: Path, status: int, code: str) -> None:
    with hub(status, **{"X-Error-Code": code}) as (address, seen):
        said = build("uni2-h", tmp_path, HF_ENDPOINT=address, HF_TOKEN=TOKEN)
    assert said.startswith("cannot get the weights of uni2-h from hf-hub:MahmoodLab/UNI2-h (")
    assert "Page: https://huggingface.co/MahmoodLab/UNI2-h (gated: ask for access there, then set HF_TOKEN" in said
    assert "--weights FILE" in said
    assert "HF_HUB_OFFLINE=1" in said
    assert "Traceback" not in said
    assert any(TOKEN in token for token in seen)  # it was used
    assert TOKEN not in said  # and is told to nobody


@pytest.mark.slow
def test_no_hub_at_all_is_told_without_the_client_s_own_lines(tmp_path: Path) -> None:
    said = build("gigapath", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    first, *rest = said.strip().splitlines()
    assert first.startswith("cannot get the weights of gigapath")
    assert rest == ways_to_weights(ENCODERS["gigapath"]).splitlines()


def test_offline_only_the_cache_is_looked_at(tmp_path: Path) -> None:
    with hub(200) as (address, seen):
        said = build("h-optimus-0", tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert said.startswith("cannot get the weights of h-optimus-0")
    assert not seen


GUARDED = """
import sys
def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print("NETWORK", event, arguments)
sys.addaudithook(guard)
from pipeline.errors import EncoderError
from pipeline.models import build_encoder
from stages.inspect_outputs import describe_model, models_table
models_table()
for name in ("uni", "phikon-v2", "hf-hub:owner/none", "resnet18", "vit_small_patch16_224"):
    describe_model(name)
    try:
        build_encoder(name, "pretrained", 224)
    except EncoderError as error:
        print("told", str(error).splitlines()[0])
"""


def test_offline_nothing_is_asked_of_a_network(tmp_path: Path) -> None:
    environment = child_environment() | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", GUARDED], env=environment, capture_output=True, text=True, timeout=90
    )
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stdout.splitlines() if line.startswith("told")]
    assert len(told) == 5
    assert all("HF_HUB_OFFLINE is set, and the local cache has none" in line for line in told)
    assert "NETWORK" not in result.stdout


@pytest.mark.slow
def test_no_token_is_in_a_traceback_or_in_what_a_command_wrote(tmp_path: Path) -> None:
    with hub(401, **{"X-Error-Code": "GatedRepo"}) as (address, seen):
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


@pytest.mark.parametrize(
    ("name", "repository"),
    [("uni", "MahmoodLab/UNI"), ("hf-hub:a/b@v1", "a/b"), ("resnet18", "timm/resnet18"), ("local-dir:x", "")],
)
def test_pages(name: str, repository: str) -> None:
    spec = named_spec(name)
    assert repository_of(spec) == repository
    assert page_of(spec) == (f"https://huggingface.co/{repository}" if repository else "")
    assert "--weights" in ways_to_weights(spec)


@pytest.mark.parametrize("text", [TOKEN, f"Authorization: Bearer {TOKEN}", "bearer abc.def", f"url?token={TOKEN}&x"])
def test_tokens_are_taken_out(text: str) -> None:
    assert TOKEN not in redacted(text)
    assert "<token>" in redacted(text)
    assert "abc.def" not in redacted(text)


def test_the_token_of_the_environment_is_taken_out_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "plain-secret")
    assert redacted("refused: plain-secret") == "refused: <token>"
    with pytest.raises(EncoderError) as caught:
        build_encoder("hf-hub:owner/plain-secret", "pretrained", 64)
    assert "plain-secret" not in str(caught.value)


def test_other_words_are_left() -> None:
    words = "401 Client Error: hf-hub:owner/name at half_precision"
    assert redacted(words) == words
