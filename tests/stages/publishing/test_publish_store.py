"""A store is published whole, with a card that the hub's own reader takes; the copy is the store."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from support.commands import call_g2l
from support.hub import StandIn

from pipeline.base.errors import ConfigError, ExportError, StoreError
from pipeline.config.tools import PublishConfig
from pipeline.store.store import Store
from stages.publishing.publish import publish_student
from stages.publishing.publish_store import publish_store


def wanted(**values: object) -> PublishConfig:
    return PublishConfig.build({"repo": "lab/store", "slides_terms": "CC-BY-4.0", "i_may_share": True, **values})


def test_what_is_published_is_the_store(good_store: Path, hub: StandIn, tmp_path: Path) -> None:
    told = publish_store(good_store, wanted(yes=True))
    assert "to data set lab/store (private)" in told
    sent = hub.files["lab/store"]
    for name, content in sent.items():
        path = tmp_path / "copy.zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    copy, store = Store(tmp_path / "copy.zarr"), Store(good_store)
    assert copy.first.content_hash() == store.first.content_hash()
    code, words, errors = call_g2l("verify", copy.folder, "--sample", "0")
    assert (code, errors) == (0, ""), words
    rows = store.first.ok_rows()
    assert np.array_equal(rows, copy.first.ok_rows())
    assert all(np.array_equal(copy.read_pixels(row), store.read_pixels(row)) for row in rows[:3].tolist())
    assert not any(str(good_store.parent).encode() in content for content in sent.values())


def test_the_card_is_the_hubs_and_says_what_is_in_the_store(good_store: Path, hub: StandIn) -> None:
    publish_store(good_store, wanted(yes=True))
    card = DatasetCard(hub.files["lab/store"]["README.md"].decode())
    store = Store(good_store)
    assert card.data.license == "other"  # type: ignore[attr-defined]
    assert card.data.license_link == "LICENSE.md"  # type: ignore[attr-defined]
    assert card.data.size_categories == ["n<1K"]  # type: ignore[attr-defined]
    for fact in (
        store.first.content_hash(),
        store.plan.hash,
        "- Slides: CC-BY-4.0.",
        f"| Slides | {len(store.plan.slides)} |",
    ):
        assert fact in card.text
    assert "hf download lab/store --repo-type dataset" in card.text
    terms = hub.files["lab/store"]["LICENSE.md"].decode()
    assert "- Slides: CC-BY-4.0." in terms
    assert terms.count("\n#") == 0  # no section of the card beside the terms


def test_nothing_is_sent_or_asked_without_all_that_is_to_be_typed(good_store: Path, hub: StandIn) -> None:
    told = publish_store(good_store, wanted())
    assert "Nothing was sent. Add --yes" in told
    listed = re.findall(r"^(\S+?)(/?)  (?:([\d,]+) files?, )?[\d.]+ \w+$", told, re.MULTILINE)
    assert {name for name, folder, _ in listed if not folder} >= {"README.md", "LICENSE.md", "zarr.json"}
    assert {name for name, folder, _ in listed if folder} <= {path.name for path in good_store.iterdir()}
    (total,) = re.findall(r"^([\d,]+) files, ", told, re.MULTILINE)
    assert sum(int(number.replace(",", "") or 1) for _, _, number in listed) == int(total.replace(",", ""))
    assert "slide ids" in told
    with pytest.raises(ConfigError, match="--slides-terms: a store holds"):
        publish_store(good_store, wanted(slides_terms=" ", yes=True))
    with pytest.raises(ExportError, match=r"(?s)do not say that you may.*Slides: on request"):
        publish_store(good_store, wanted(slides_terms="on request", i_may_share=False, yes=True))
    with pytest.raises(ConfigError, match="Give OWNER/NAME"):
        publish_store(good_store, wanted(repo="store"))
    code, told, errors = call_g2l(
        "publish", good_store, "--repo", "lab/store", "--slides-terms", "CC0-1.0", "--i-may-share"
    )
    assert (code, errors) == (0, "")
    assert "Nothing was sent" in told
    assert hub.asked == []


def test_a_store_that_is_not_whole_is_not_sent(good_store: Path, hub: StandIn, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(good_store, tmp_path / "broken.zarr"))
    ledger = broken / "shards" / "0.json"
    entry = ledger.read_bytes()
    ledger.unlink()
    with pytest.raises(StoreError, match=r"(?s)not whole, and so not sent.*1 shard pending"):
        publish_store(broken, wanted(yes=True))
    ledger.write_bytes(entry)
    shard = next((broken / "embedding" / "c").rglob("0"))
    shard = shard if shard.is_file() else next(path for path in shard.rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StoreError, match=r"(?s)not whole, and so not sent.*embedding"):
        publish_store(broken, wanted(yes=True))
    assert hub.asked == []


def test_a_student_takes_no_terms_of_slides(student: Path) -> None:
    with pytest.raises(ConfigError, match="--slides-terms: of a store's slides"):
        publish_student(student, wanted())
