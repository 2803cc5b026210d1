import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.object_kinds import Kind, store_of_kind
from support.object_server import BUCKET, KEY, SECRET, ObjectServer, object_server

from pipeline.base.errors import G2LError
from pipeline.disk.objects import bucket as module
from pipeline.disk.objects.bucket import Bucket, NoObjectError, ObjectError

FACTS = {"last_modified": datetime(2026, 1, 1, tzinfo=UTC), "e_tag": "1"}
"""What a store says of each object beside its name and size."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "there" / "plan").mkdir(parents=True)
    (tmp_path / "there" / "plan" / "a.json").write_bytes(b"0123456789")
    return tmp_path / "there"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


def test_a_folder_is_read_as_a_bucket(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(f"file://{folder}")
    assert bucket.sizes() == {"plan/a.json": 10}
    assert bucket.read("plan/a.json", 2, 3) == b"234"
    assert bucket.read("plan/a.json", 8, 100) == b"89"
    assert bucket.read("plan/a.json", 3, 0) == b""
    monkeypatch.setattr(module, "BLOCK_BYTES", 3)  # several requests
    into = tmp_path / "copy"
    into.write_bytes(bytes(12))
    assert bucket.fetch("plan/a.json", 10, into) == hashlib.sha256(b"0123456789").hexdigest()
    assert into.read_bytes() == b"0123456789"


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NoObjectError, match=r"plan/b\.json: no such object"):
        Bucket(f"file://{folder}").read("plan/b.json", 0, 1)
    with pytest.raises(ObjectError, match="none"):
        Bucket(f"file://{tmp_path}/none").sizes()


def test_without_obstore_the_error_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(G2LError, match=r"package obstore: pip install 'g2l\[objects\]'"):
        Bucket(f"file://{folder}")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "a//b", "a\\b", "a/./b", "a\0b"])
def test_names_that_lead_elsewhere_are_left_out(name: str) -> None:
    assert not module._is_path(name)


def test_folders_that_clients_put_there_as_objects_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's console, s3fs and others make an empty object of each folder; obstore lists it without its slash."""

    def list_objects(store: object, prefix: str = "") -> list[list[dict[str, Any]]]:
        sizes = {"a": 0, "a/b": 0, "a/b/c": 3, "a/empty": 0, "a/no": 0, "ab": 1}
        return [[{"path": path, "size": size, **FACTS} for path, size in sizes.items() if path.startswith(prefix)]]

    def head(store: object, name: str) -> dict[str, Any]:
        if name != "a/empty":
            raise FileNotFoundError
        return {"path": name, "size": 0, **FACTS}

    bucket = Bucket(f"file://{folder}")
    directly = {"objects": [{"path": "a", "size": 0}, {"path": "a/d", "size": 4}]}
    library = SimpleNamespace(list=list_objects, head=head, list_with_delimiter=lambda store, prefix: directly)
    monkeypatch.setattr(bucket, "_library", library)
    assert bucket.sizes() == {"a/b/c": 3, "a/empty": 0, "a/no": 0, "ab": 1}
    assert list(bucket.look_below("a")) == ["b/c", "empty"]  # "no" is a folder that holds nothing
    assert bucket.sizes_in("a") == {"d": 4}


def test_an_error_is_told_without_addresses_and_answers() -> None:
    text = (
        "Generic S3 error: Error performing GET http://h/b?X-Amz-Signature=1 in 2ms - Server returned non-2xx status "
        "code: 403 Forbidden: <?xml secret?>\n\nDebug source: secret"
    )
    assert module._words(ValueError(text)) == "the server answered 403 Forbidden"


def test_a_stopped_bucket_gives_up_at_once(folder: Path) -> None:
    bucket = Bucket(f"file://{folder}")
    bucket.stop()
    with pytest.raises(ObjectError, match="given up"):
        bucket.read("plan/a.json", 0, 1)


@pytest.mark.slow
def test_a_server_is_read_by_its_own_words(server: ObjectServer, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    server.put("deep/er/one", data)
    server.put("deep/two", b"")
    bucket = Bucket(f"s3://{BUCKET}/deep")
    assert bucket.sizes() == {"er/one": 300_000, "two": 0}
    assert bucket.read("er/one", 1000, 50) == data[1000:1050]
    into = tmp_path / "copy"
    into.write_bytes(bytes(300_000))
    assert bucket.fetch("er/one", 300_000, into) == hashlib.sha256(data).hexdigest()
    assert bucket.fetch("two", 0, into) == hashlib.sha256(b"").hexdigest()
    with pytest.raises(ObjectError, match=rf"s3://{BUCKET}/deep/er/one: cannot be read .*416"):
        bucket.read("er/one", 400_000, 10)
    with pytest.raises(ObjectError, match=r"s3://other/x: cannot be listed .*404 Not Found"):
        Bucket("s3://other/x").sizes()


@pytest.mark.slow
def test_an_address_is_taken_literally(server: ObjectServer) -> None:
    """Not as an encoded one, by which `a%20b` would be another folder, whose store would be read without a word."""
    server.put("a%2520b/one", b"1")
    server.put("a%20b/other", b"22")
    assert Bucket(f"s3://{BUCKET}/a%20b").sizes() == {"one": 1}
    assert Bucket(f"s3://{BUCKET}/a b").sizes() == {"other": 2}


@pytest.mark.slow
def test_a_server_with_folders_as_objects(server: ObjectServer) -> None:
    for name, data in {"m/": b"", "m/x.mrxs": b"1", "m/x/": b"", "m/x/none/": b"", "m/x/1.dat": b"22"}.items():
        server.put(name, data)
    assert Bucket(f"s3://{BUCKET}/m").sizes() == {"x.mrxs": 1, "x/1.dat": 2, "x/none": 0}
    bucket = Bucket(f"s3://{BUCKET}")
    assert list(bucket.look_below("m/x")) == ["1.dat"]
    assert bucket.sizes_in("m") == {"x.mrxs": 1}


@pytest.mark.slow
def test_who_may_not_read_is_told_where_credentials_come_from(server: ObjectServer) -> None:
    server.put("closed/one", b"1")
    bucket = Bucket(f"s3://{BUCKET}/closed")
    server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        with pytest.raises(ObjectError, match=r"access is denied.*AWS_ACCESS_KEY_ID") as error:
            bucket.read("one", 0, 1)
    finally:
        server.ask("POST", "moto-api/reset-auth", b"inf")
    assert KEY not in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.slow
def test_a_server_that_dies_is_waited_for_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with object_server() as server:
        server.put("one", b"123")
        bucket = Bucket(f"s3://{BUCKET}")
        server.kill()

        def begin_again() -> None:
            time.sleep(0.5)
            server.start()
            server.put("one", b"456")

        thread = threading.Thread(target=begin_again)
        thread.start()
        read = []
        while not read:
            try:
                read.append(bucket.read("one", 0, 3))
            except NoObjectError:  # it is back, and empty still
                time.sleep(0.05)
        thread.join()
        assert read == [b"456"]
        server.kill()
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.5)
        with pytest.raises(ObjectError, match=r"trying again for 0\.5 s .* run the same command again"):
            bucket.read("one", 0, 3)


@pytest.mark.parametrize("kind", ["https", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gs", "az"))])
def test_other_kinds_of_stores_are_read_alike(kind: Kind, tmp_path: Path) -> None:
    data, into = os.urandom(5000), tmp_path / "copy"
    with store_of_kind(kind, tmp_path) as (url, put):
        put("deep/er/one of us.svs", data)
        put("deep/two", b"2")
        put("else/three", b"3")
        bucket = Bucket(f"{url}/deep")
        assert bucket.sizes() == {"er/one of us.svs": 5000, "two": 1}
        assert list(bucket.look_below("er")) == list(bucket.sizes_in("er")) == ["one of us.svs"]
        assert bucket.sizes_in("") == {"two": 1}
        facts = bucket.look("er/one of us.svs")
        assert facts.num_bytes == 5000
        assert bucket.look("er/one of us.svs") == facts
        assert bucket.read("er/one of us.svs", 1000, 50) == data[1000:1050]
        assert bucket.read("er/one of us.svs", 4990, 50) == data[4990:]
        into.write_bytes(bytes(5000))
        assert bucket.fetch("er/one of us.svs", 5000, into, at_once=2) == hashlib.sha256(data).hexdigest()
        with pytest.raises(NoObjectError, match="deep/none: no such object"):
            bucket.look("none")
        put("deep/er/one of us.svs", data[::-1])
        assert bucket.look("er/one of us.svs").version != facts.version
