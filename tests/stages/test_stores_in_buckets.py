"""Commands that read a store in a bucket, against a real S3-compatible server; and those that refuse addresses."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import call_g2l
from support.object_kinds import KINDS, Kind, store_of_kind
from support.object_server import KEY, SECRET, ObjectServer, object_server
from support.stores import dropping_cnn, make_store

from pipeline.disk.objects import bucket
from pipeline.store.store import Store
from stages import train_student as stage
from stages.verify import COPY_FROM_ORIGINAL, FINISH_AND_COPY

COMPARED = ("metrics.jsonl", "run.json", "student/model.safetensors", "student/projector/projector.safetensors")
"""Files of a run in which no path stands."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a student, and a run from the store's folder."""
    root = tmp_path_factory.mktemp("bucket")
    make_store(root / "store.zarr")
    dropping_cnn(root / "student")
    assert train(root, root / "store.zarr", root / "run")[0] == 0
    return root


@pytest.fixture(scope="module")
def url(root: Path, server: ObjectServer) -> str:
    return server.upload(root / "store.zarr", "of/us/store.zarr")


def train(root: Path, store: object, out: Path, *more: object) -> tuple[int, str, str]:
    options = ("--student", f"local-dir:{root / 'student'}", "--weights", "scratch", "--epochs", 2, "--batch-size", 8)
    return call_g2l("train-student", store, "--out", out, *options, "--device", "cpu", *more)


def require_same_run(root: Path, out: Path) -> None:
    for name in COMPARED:
        assert (out / name).read_bytes() == (root / "run" / name).read_bytes(), name


def tight(root: Path) -> float:
    """GB for the metadata of the store, and for few of its shard files."""
    paths = (path for path in (root / "store.zarr").rglob("*") if path.is_file())
    return (sum(p.stat().st_size for p in paths if p.suffix == ".json" or "plan" in p.parts) + 2000) / 1e9


@pytest.mark.slow
@pytest.mark.parametrize("is_tight", [False, True])
def test_a_run_from_a_bucket_is_that_from_the_folder(root: Path, url: str, tmp_path: Path, is_tight: bool) -> None:
    stage = ("--stage-dir", tmp_path / "stage", *(("--stage-gb", tight(root)) if is_tight else ()))
    code, out, said = train(root, url, tmp_path / "run", *stage)
    assert (code, "has room for no more" in said) == (0, is_tight), said
    require_same_run(root, tmp_path / "run")
    assert f'store = "{url}"' in (tmp_path / "run" / "config.toml").read_text()
    assert not [path for path in (tmp_path / "stage").iterdir() if not path.name.endswith("lock")]
    texts = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()] + [(out + said).encode()]
    assert not [text for text in texts if KEY.encode() in text or SECRET.encode() in text]
    code, out, _ = train(root, url, tmp_path / "run", *stage)  # finished
    assert (code, "12 steps" in out) == (0, True)


@pytest.mark.slow
def test_a_server_that_dies_ends_the_run_and_the_same_command_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 0.5)
    with object_server() as server:
        url = server.upload(root / "store.zarr", "store.zarr")
        more = ("--stage-dir", tmp_path / "stage", "--stage-gb", tight(root))
        real = stage.save

        def save_and_kill(*args: object) -> None:
            real(*args)  # type: ignore[arg-type]
            server.kill()

        monkeypatch.setattr(stage, "save", save_and_kill)  # once the first epoch is saved
        code, _, said = train(root, url, tmp_path / "run", *more)
        monkeypatch.setattr(stage, "save", real)
        assert (code, "run the same command again" in said) == (1, True), said
        assert not (tmp_path / "run" / "student").exists()
        server.start()
        server.upload(root / "store.zarr", "store.zarr")
        assert train(root, url, tmp_path / "run", *more)[0] == 0
    require_same_run(root, tmp_path / "run")


@pytest.mark.slow
def test_inspect_and_verify_say_what_they_say_of_the_folder(root: Path, url: str) -> None:
    folder = str(root / "store.zarr")
    local, there = call_g2l("inspect", folder), call_g2l("inspect", url)
    assert there == (0, local[1].replace(folder, url), "")
    assert call_g2l("verify", url, "--sample", 0)[:2] == (0, "4 of 4 shards: all files are as written\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_stores_are_opened_alike(root: Path, tmp_path: Path, kind: Kind) -> None:
    folder = root / "store.zarr"
    with store_of_kind(kind, tmp_path) as (url, put):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            put(f"deep/store.zarr/{path.relative_to(folder).as_posix()}", path.read_bytes())
        url += "/deep/store.zarr"
        assert call_g2l("inspect", url) == (0, call_g2l("inspect", folder)[1].replace(str(folder), url), "")
        assert call_g2l("verify", url, "--sample", 0)[:2] == (0, "4 of 4 shards: all files are as written\n")


@pytest.mark.slow
def test_damage_in_a_bucket_is_found(root: Path, server: ObjectServer, tmp_path: Path) -> None:
    url = server.upload(root / "store.zarr", "damaged.zarr")
    store = Store(root / "store.zarr")
    name = store.first.shard_path("embedding", 1).relative_to(store.folder).as_posix()
    data = bytearray((store.folder / name).read_bytes())
    data[7] ^= 1
    server.put(f"damaged.zarr/{name}", bytes(data))
    code, out, _ = call_g2l("verify", url, "--sample", 0)
    assert (code, f"{name}: its bytes have changed" in out) == (1, True)
    assert out.endswith(f"{COPY_FROM_ORIGINAL}\n"), "what helps a folder does not help in a bucket"
    code, _, said = train(root, url, tmp_path / "run")
    assert (code, f"{url}/{name}: damaged" in said) == (1, True), said
    server.delete(f"damaged.zarr/{name}")
    code, out, _ = call_g2l("verify", url, "--sample", 0)
    assert (code, f"{name}: missing" in out) == (1, True)
    code, _, said = train(root, url, tmp_path / "run")
    assert (code, "Was the store copied only in part?" in said) == (1, True), said


def test_a_store_that_was_copied_before_it_was_finished_says_where_to_finish_it(
    root: Path, server: ObjectServer, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(root / "store.zarr", tmp_path / "store.zarr"))
    Store(store).first.ledger.path(3).unlink()
    url = server.upload(store, "begun.zarr")
    code, out, _ = call_g2l("verify", url, "--sample", 0)
    assert (code, f"1 shard pending: {FINISH_AND_COPY}" in out) == (3, True), out


def test_the_doctor_heads_a_store_with_its_address_and_no_password(url: str) -> None:
    assert f"\nstore {url}\n" in call_g2l("doctor", url)[1]
    code, out, said = call_g2l("doctor", "s3://me:hidden@bucket/store.zarr")
    assert code == 1
    assert "hidden" not in out + said


def test_outputs_and_other_inputs_at_an_address_are_refused(tmp_path: Path) -> None:
    for words in (
        ("extract-teacher", tmp_path / "plan.h5", "--out", "s3://b/store.zarr", "--teacher", "uni"),
        ("train-student", tmp_path / "store.zarr", "--out", "s3://b/run", "--student", "resnet10t"),
        ("import-features", tmp_path, "--out", "gs://b/store.zarr", "--teacher", "uni"),
        ("merge", tmp_path / "store.zarr", "--out", "az://b/store.zarr"),
        ("embed", "uni", tmp_path, "--out", "s3://b/embeddings"),
        ("export", tmp_path / "run", "--out", "s3://b/student"),
        ("plan", tmp_path / "m.csv", "--out", "s3://b/plan.h5"),
        ("evaluate", "--out", "s3://b/report"),
    ):
        code, _, said = call_g2l(*words)
        assert (code, "outputs are written to a local folder" in said) == (1, True), (words, said)
    for words in (
        ("extract-teacher", "s3://b/store.zarr", "--out", tmp_path / "store.zarr", "--teacher", "uni"),
        ("plan", "s3://b/m.csv", "--out", tmp_path / "plan.h5"),
        ("export", "s3://b/run", "--out", tmp_path / "student"),
        ("verify", tmp_path / "store.zarr", "--weights", "s3://b/weights"),
        ("curve", "s3://b/store.zarr", "--out", tmp_path / "curve", "--student", "resnet10t"),
    ):
        code, _, said = call_g2l(*words)
        assert (code, "only train-student, inspect and verify open" in said) == (1, True), (words, said)
    assert not (tmp_path / "store.zarr").exists()


def test_a_password_in_an_address_is_neither_used_nor_shown(tmp_path: Path) -> None:
    for words in (("inspect", "s3://me:hidden@b/x"), ("verify", "s3://b/x?token=hidden")):
        code, _, said = call_g2l(*words)
        assert (code, "hidden" in said, "holds a user, a password" in said) == (1, False, True), said
    code, _, said = train(tmp_path, "s3://me:hidden@b/x", tmp_path / "run")
    assert (code, "hidden" in said) == (1, False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_from_an_address_needs_no_server_of_its_own(root: Path, tmp_path: Path) -> None:
    """`file://`: the way of a bucket, in a folder."""
    copy = Path(shutil.copytree(root / "store.zarr", tmp_path / "copy.zarr"))
    code, _, said = train(root, f"file://{copy}", tmp_path / "run")
    assert code == 0, said
    require_same_run(root, tmp_path / "run")
