"""BACH: a miniature with the real folders and names, and eva's split."""

from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.readers.bach import PREFIXES, split_of

EVA_TRAIN = [(0, 41), (59, 60), (90, 139), (169, 240), (258, 260), (273, 345), (368, 400)]
"""kaiko-eva's ranges of the training part."""


def test_label_and_split(tmp_path: Path) -> None:
    members = public_sets.read("bach", public_sets.bach(tmp_path))
    by_path = {row["path"]: (row["label"], row["split"]) for row in members.rows}
    assert len(by_path) == 16
    assert by_path["Benign/b001.tif"] == ("benign", "train")
    assert by_path["Benign/b042.tif"] == ("benign", "test")
    assert by_path["Benign/b060.tif"] == ("benign", "train")
    assert by_path["InSitu/is042.tif"] == ("in situ", "test")
    assert by_path["Normal/n100.tif"] == ("normal", "train")
    assert members.left_out == ()


def test_the_split_is_evas_for_all_images() -> None:
    """Against eva's other list: whoever is not in its training part is scored."""
    train = {place for first, end in EVA_TRAIN for place in range(first, end)}
    order = [(folder, number) for folder in sorted(PREFIXES) for number in range(1, 101)]
    assert [split_of(*each) for each in order] == ["train" if i in train else "test" for i in range(400)]
    assert len(train) == 268


@pytest.mark.parametrize("odd", ["Benign/n001.tif", "Benign/b101.tif", "Other/b001.tif", "Normal/n000.tif", "b1.tif"])
def test_a_name_outside_the_set_is_named(tmp_path: Path, odd: str) -> None:
    root = public_sets.bach(tmp_path)
    public_sets.picture(root / "ICIAR2018_BACH_Challenge/Photos" / odd, 1)
    members = public_sets.read("bach", root)
    assert (len(members.rows), list(public_sets.failed(members))) == (16, [odd])


def test_the_root_may_be_the_photos(tmp_path: Path) -> None:
    root = public_sets.bach(tmp_path)
    assert len(public_sets.read("bach", root / "ICIAR2018_BACH_Challenge/Photos").rows) == 16
    with pytest.raises(BenchmarkError, match="holds no ICIAR2018_BACH_Challenge/Photos"):
        public_sets.read("bach", root / "ICIAR2018_BACH_Challenge/Photos/Benign")
