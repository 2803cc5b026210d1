"""A place is a path or an address, exactly as it was written; addresses that lead elsewhere are refused."""

import pickle
from pathlib import Path

import pytest

from pipeline.disk.objects.places import (
    ObjectPath,
    as_place,
    place_below,
    place_trouble,
    real_name,
    say_where,
    why_no_slide,
)

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("address", "bucket", "key"),
    [
        ("s3://bucket/a/b c.svs", "s3://bucket", "a/b c.svs"),
        ("s3://bucket/p%20c#1.svs", "s3://bucket", "p%20c#1.svs"),
        ("gs://b/\u00e9.svs", "gs://b", "\u00e9.svs"),
        ("gs://b/e\u0301.svs", "gs://b", "e\u0301.svs"),
        ("abfs://c@account.dfs.core.windows.net/x.svs", "abfs://c@account.dfs.core.windows.net", "x.svs"),
        ("https://host/a%20b/c%20d.svs", "https://host/a%20b", "c d.svs"),
        ("file:///data/a.svs", "file:///", "data/a.svs"),
    ],
)
def test_an_address_is_kept_as_it_is_and_has_a_bucket_and_a_key(address: str, bucket: str, key: str) -> None:
    place = as_place(address)
    assert isinstance(place, ObjectPath)
    assert (str(place), place.split(), real_name(place)) == (address, (bucket, key), address)
    again = pickle.loads(pickle.dumps(place))
    assert (again, str(again), hash(again)) == (place, address, hash(place))
    assert place == as_place(Path(address)) == place.absolute()
    assert "--stage-dir" in why_no_slide(place)


def test_what_a_table_names_lies_below_the_root_unless_it_is_an_address_or_absolute(tmp_path: Path) -> None:
    assert str(place_below(Path("s3://bucket/of us"), "x/a b.svs")) == "s3://bucket/of us/x/a b.svs"
    assert str(place_below(ROOT, "s3://bucket/a.svs")) == "s3://bucket/a.svs"
    assert place_below(Path("s3://bucket"), "/data/a.svs") == ROOT / "a.svs"
    (tmp_path / "e\u0301.svs").touch()
    assert place_below(tmp_path, "\u00e9.svs") == tmp_path / "e\u0301.svs"
    assert not isinstance(place_below(ROOT, "a.svs"), ObjectPath)
    assert (real_name(tmp_path / "x" / ".."), why_no_slide(tmp_path)[:13]) == (str(tmp_path), "no such slide")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../a.svs", "leads elsewhere"),
        ("x/../../a.svs", "leads elsewhere"),
        ("s3://bucket/../a.svs", "leads elsewhere"),
        ("s3://bucket//a.svs", "leads elsewhere"),
        ("s3://bucket/x/./a.svs", "leads elsewhere"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/x/", "names no object"),
        ("s3://bucket/a\\b.svs", "backslash"),
        ("s3://bucket/a\u202eb.svs", "does not print"),
        ("s3://bucket/" + "\u00e9" * 128, "longer than 255 bytes"),
        ("s3://bucket/a.svs?X-Amz-Signature=hidden", "plain address"),
        ("s3://me:hidden@bucket/a.svs", "plain address"),
        ("https://host/a.svs#hidden", "plain address"),
        ("ftp://me:hidden@host/a.svs", "are not opened"),
        ("s3://[hidden/a.svs", "is no address"),
    ],
)
def test_addresses_that_cannot_be_are_refused_without_what_may_be_secret(name: str, words: str) -> None:
    trouble = place_trouble(Path("s3://bucket/x"), name)
    assert words in trouble
    assert "hidden" not in trouble


def test_a_root_is_asked_for_only_where_it_is_of_use() -> None:
    assert say_where(["a.svs", "/data/b.svs"]).startswith("say with --slides-root")
    for names in (["/data/a.svs"], ["s3://bucket/a.svs", "/data/b.svs"]):
        assert "full paths, which --slides-root leaves as they are" in say_where(names)


def test_others_are_not_refused() -> None:
    assert [place_trouble(Path("s3://bucket/x"), name) for name in ("a#1 %.svs", "/data/../a.svs")] == ["", ""]
    assert [place_trouble(ROOT, name) for name in ("../a.svs", "s3://b/a.svs", "file:///a.svs")] == ["", "", ""]
