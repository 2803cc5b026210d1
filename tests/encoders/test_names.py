"""Tools' names of encoders: the teacher's is not worth a word, another's is refused, an unknown one is said."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.encoders.names import NOT_IN_TABLE, OF_TABLE, are_of_one, encoders_named, letters, other_encoders
from pipeline.encoders.table import ENCODERS, named_spec

TRIDENT = {
    "h-optimus-0": "hoptimus0",
    "h-optimus-1": "hoptimus1",
    "h0-mini-mean": "h0-mini",
    "hibou-l": "hibou_l",
    "uni": "uni_v1",
    "uni2-h": "uni_v2",
    "virchow2": "virchow2",
    "gigapath": "gigapath",
    "phikon-v2": "phikon_v2",
    "kaiko-vitl14": "kaiko-vitl14",
    "gpfm": "gpfm",
    "virchow": "virchow",
    "midnight-12k-cls": "midnight12k",
    "openmidnight": "openmidnight",
    "gigapath-flash": "gigapath-flash",
    "phikon": "phikon",
    "kaiko-vitb8": "kaiko-vitb8",
    "kaiko-vitb16": "kaiko-vitb16",
    "kaiko-vits8": "kaiko-vits8",
    "kaiko-vits16": "kaiko-vits16",
    "lunit-vits8": "lunit-vits8",
}
STAMP = {"uni": "mahmood-uni-77ffbca1", "uni2-h": "mahmood-uni2", "h-optimus-0": "h_optimus_0", "gigapath": "gigapath"}
SLIDE2VEC = {"uni": "uni", "uni2-h": "uni2", "h0-mini": "h0-mini", "phikon-v2": "phikonv2", "hibou-l": "hibou-l"} | {
    "hibou-b": "hibou-b",
    "midnight-12k": "midnight",
    "lunit-vits8": "lunit",
}
SAME = [(teacher, name) for table in (TRIDENT, STAMP, SLIDE2VEC) for teacher, name in table.items()]


def others(names: list[str], teacher: str) -> list[str]:
    return other_encoders(names, named_spec(teacher).record())


def test_the_table_names_encoders_that_there_are() -> None:
    assert OF_TABLE.keys() <= ENCODERS.keys()
    assert all(key in encoders_named(name) for key, names in OF_TABLE.items() for name in names)
    assert all(key in encoders_named(key) for key in ENCODERS)
    assert not NOT_IN_TABLE.keys() & ENCODERS.keys()
    spellings = [letters(name) for names in NOT_IN_TABLE.values() for name in names]
    assert len(set(spellings)) == len(spellings)
    assert all(encoders_named(name) == {key} for key, names in NOT_IN_TABLE.items() for name in names)


@pytest.mark.parametrize(("teacher", "name"), SAME)
def test_a_name_that_is_the_teacher_s_gives_no_note(teacher: str, name: str) -> None:
    assert others([name], teacher) == []


@pytest.mark.parametrize("teacher", ENCODERS)
def test_a_name_of_another_entry_is_refused_and_that_entry_is_named(teacher: str) -> None:
    for other, name in TRIDENT.items():
        if teacher in encoders_named(name):
            continue
        with pytest.raises(
            ConfigError,
            match=rf"the files name the encoder {name}.*--teacher says {teacher}\. Give "
            rf"--teacher .*{other}",
        ):
            others([name], teacher)


@pytest.mark.parametrize("name", ["virchow2-cls", "conch_v15", "mahmood-conch", "musk", "rudolfv2-s", "genbio-pathfm"])
def test_a_known_encoder_that_is_not_in_the_table_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"the encoder {name}, which is .*It is not in the table of `g2l models`"):
        others([name], "virchow2")


def test_an_unknown_name_is_said() -> None:
    assert others(["tiny", "MahmoodLab/copies/UNI"], "h-optimus-0") == ["tiny", "MahmoodLab/copies/UNI"]


@pytest.mark.parametrize(
    "name",
    [
        "h-optimus-0-as-teacher",
        "run-as-uni",
        "run-as-hf-hub:MahmoodLab/UNI",
        "run-as-hf-hub:MahmoodLab/UNI@main",
        "run-as-MahmoodLab/UNI",
    ],
)
@pytest.mark.parametrize("teacher", ["uni", "hf-hub:MahmoodLab/UNI", "h-optimus-0", "local-dir:weights/mine"])
def test_a_student_s_embeddings_are_not_the_teacher_s_own(name: str, teacher: str) -> None:
    with pytest.raises(ConfigError, match=f"the encoder {name}: `g2l embed --as-teacher` calls the embeddings of a st"):
        others([name], teacher)


@pytest.mark.parametrize("teacher", ["hf-hub:bioptimus/H-optimus-0@main", "hf-hub:bioptimus/h-optimus-0@0f1e"])
def test_a_page_s_revision_does_not_hide_which_encoder_it_is(teacher: str) -> None:
    assert others(["hoptimus0", "bioptimus/H-optimus-0@other"], teacher) == []
    with pytest.raises(ConfigError, match=f"the encoder uni_v2, which is uni2-h; --teacher says {teacher}. Give"):
        others(["uni_v2"], teacher)


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (["uni_v1", "mahmood-uni", "hf-hub:MahmoodLab/UNI@main"], True),
        (["mine", "Mine"], True),
        ([], True),
        (["h0-mini", "h0-mini-mean"], True),
        (["uni_v1", "uni_v2"], False),
        (["uni", "run-as-uni"], False),
        (["mine", "other"], False),
        (["local-dir:a@b/mine", "mine"], True),
        (["local-dir:a/x@1", "a/x"], False),
    ],
)
def test_names_of_one_encoder(names: list[str], is_one: bool) -> None:
    assert are_of_one(names) == is_one


def test_a_teacher_that_nobody_knows_contradicts_nothing() -> None:
    """Whatever weights lie in a folder, or are given for a timm name."""
    assert others(["uni_v1"], "vit_large_patch16_224") == ["uni_v1"]
    assert others(["uni_v1"], "local-dir:weights/mine") == ["uni_v1"]
    assert others(["mine"], "local-dir:weights/mine") == []
    assert others(["uni_v1"], "hf-hub:MahmoodLab/UNI") == []
    assert others(["conch_v1"], "hf-hub:MahmoodLab/CONCH") == []
    with pytest.raises(ConfigError, match="the encoder uni_v1, which is uni; --teacher says hf-hub:MahmoodLab/CONCH"):
        others(["uni_v1"], "hf-hub:MahmoodLab/CONCH")
