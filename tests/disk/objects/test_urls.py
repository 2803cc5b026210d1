from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.disk.objects.urls import absolute, as_url, readable_url, require_local, shown_url


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("s3://bucket/a/store.zarr", "s3://bucket/a/store.zarr"),
        ("S3://bucket/a/", "s3://bucket/a"),
        ("gs://b", "gs://b"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("file:///data/store.zarr", "file:///data/store.zarr"),
        ("https://host/x", "https://host/x"),
        ("ftp://host/x", "ftp://host/x"),
        ("store.zarr", None),
        ("/data/s3:/x", None),
        ("a:/b", None),
        ("hf-hub:timm/vit", None),
        ("s3:x", None),
    ],
)
def test_an_address_is_known_though_a_path_has_lost_a_slash(typed: str, url: str | None) -> None:
    assert as_url(typed) == url
    assert as_url(Path(typed)) == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:hidden@bucket/x",
        "s3://hidden@bucket/x",
        "https://host/x?X-Amz-Signature=hidden",
        "https://host/x#hidden",
        "abfs://container:hidden@account/x",
        "ftp://user:hidden@host/x",
    ],
)
def test_what_may_be_secret_is_refused_and_not_shown(url: str) -> None:
    assert "hidden" not in shown_url(url)
    with pytest.raises(ConfigError) as error:
        readable_url(url)
    assert "hidden" not in str(error.value)
    for name in ("out", "--stage-dir", "manifest"):
        with pytest.raises(ConfigError) as error:
            require_local(name, Path(url))
        assert "hidden" not in str(error.value)


def test_addresses_that_are_not_opened_are_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"hdfs://host/x: such addresses are not opened.* s3://, gs://"):
        readable_url("hdfs://host/x")
    assert readable_url("s3://bucket/x") == "s3://bucket/x"


def test_an_output_at_an_address_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"--out s3://b/x: .* copy it there: .* the ledger last"):
        require_local("out", Path("s3://b/x"))
    with pytest.raises(ConfigError, match=r"slides-root s3://b/x: plan, extract-teacher and embed read slides"):
        require_local("--slides_root", Path("s3://b/x"))
    with pytest.raises(ConfigError, match=r"store s3://b/x: only train-student, inspect and verify"):
        require_local("store", Path("s3://b/x"))
    require_local("out", Path("run"))


def test_records_have_addresses_as_they_were_typed() -> None:
    assert absolute(Path("s3://bucket/x")) == "s3://bucket/x"
    assert absolute(Path("x")) == str(Path.cwd() / "x")
