"""Places that are there, and those that are not, in files and buckets."""

from pathlib import Path

import pytest
from support.object_server import ObjectServer

from pipeline.base.outside import NO_FILE
from pipeline.disk.objects import bucket, present
from pipeline.disk.objects.bucket import AwayError, NoObjectError, ObjectFacts
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import Buckets, absent_places, look_at_objects


def test_absent_places_are_named_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"abc")
    here, gone = ObjectPath(f"file://{tmp_path}/a.svs"), ObjectPath(f"file://{tmp_path}/b.svs")
    places = [tmp_path / "c.svs", gone, tmp_path / "a.svs", here, tmp_path]
    folder = {tmp_path: "it is a folder, not a file"}
    assert absent_places(places) == {tmp_path / "c.svs": NO_FILE, gone: "no such object"} | folder
    looks = look_at_objects([here, gone])
    assert isinstance(looks[gone], NoObjectError)
    look = looks[here]
    assert isinstance(look, ObjectFacts)
    assert (look.num_bytes, look.modified == pytest.approx((tmp_path / "a.svs").stat().st_mtime)) == (3, True)
    assert absent_places([]) == look_at_objects([]) == {}


def test_a_bucket_is_opened_once_and_all_are_stopped(tmp_path: Path) -> None:
    buckets = Buckets()
    first, key = buckets.of(ObjectPath(f"file://{tmp_path}/a.svs"))
    assert buckets.of(ObjectPath("file:///b.svs")) == (first, "b.svs")
    assert key == f"{tmp_path}/a.svs".lstrip("/")
    buckets.stop()
    with pytest.raises(bucket.ObjectError, match="the command ends"):
        first.look(key)


def test_a_server_that_is_away_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though there are many objects, which are not all tried for so long."""
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(present, "LOOKS", 2)
    for name, value in ObjectServer().environment.items():  # which nobody has started
        monkeypatch.setenv(name, value)
    with pytest.raises(AwayError, match=r"s3://bucket/a\d\.svs: cannot be looked at .* did not help"):
        look_at_objects(ObjectPath(f"s3://bucket/a{number}.svs") for number in range(8))
