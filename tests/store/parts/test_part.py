"""Parts of a plan: whole shards, each in exactly one part, whatever their number."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.extraction import made_up_plan

from pipeline.base.errors import ConfigError, StoreError
from pipeline.store.parts.part import StorePart, part_of, require_part


@given(st.integers(1, 40), st.data())
def test_every_shard_is_in_one_part(num_shards: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, num_shards))
    parts = [list(StorePart(number, count).shards(num_shards)) for number in range(1, count + 1)]
    assert [shard for part in parts for shard in part] == list(range(num_shards))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "1.0/2", "٣/٤"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a part is I/N"):
        StorePart.parse(text)


def test_more_parts_than_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 3 shards, which cannot be divided into 4 parts"):
        StorePart.parse("1/4").shards(3)


def test_a_part_reads_the_slides_of_its_rows() -> None:
    plan = made_up_plan(num_rows=21)  # 7 rows of the slide a, 14 of b
    names = [[slide.slide_id for slide in StorePart(i, 3).slides(plan, 4)] for i in (1, 2, 3)]  # 6 shards: 8, 8, 5 rows
    assert names == [["a", "b"], ["b"], ["b"]]
    assert [slide.slide_id for slide in StorePart(1, 1).slides(plan, 4)] == ["a", "b"]
    assert [StorePart(i, 3).rows(plan.num_rows, 4) for i in (1, 2, 3)] == [range(8), range(8, 16), range(16, 21)]


def test_a_store_says_which_part_it_is() -> None:
    assert part_of({}) is None
    assert part_of(StorePart(2, 3).note()) == StorePart(2, 3)
    for wrong in (1, "1/2", [1], [1, 2, 3], [0, 2], [3, 2], ["1", "2"], None):
        with pytest.raises(ValueError, match="part is"):
            part_of({"part": wrong})


def test_a_part_is_continued_as_that_part_only() -> None:
    here = Path("s.zarr")
    require_part(here, None, None)
    require_part(here, StorePart(1, 2), StorePart(1, 2))
    with pytest.raises(StoreError, match="is not a part"):
        require_part(here, None, StorePart(1, 2))
    with pytest.raises(StoreError, match=r"is part 1/2 of a store.*`g2l merge`$"):
        require_part(here, StorePart(1, 2), None)
    with pytest.raises(StoreError, match="part 2/2 needs an --out of its own"):
        require_part(here, StorePart(1, 2), StorePart(2, 2))
