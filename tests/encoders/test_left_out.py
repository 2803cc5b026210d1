"""Encoders that are not in the table are refused with the reason, by any of their names, and never guessed at."""

import pytest

from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from pipeline.encoders.left_out import NOT_BUILT, left_out_name, require_buildable
from pipeline.encoders.names import encoders_named
from pipeline.encoders.table import ENCODERS, named_spec


@pytest.mark.parametrize("name", NOT_BUILT)
def test_each_has_a_reason_and_a_way(name: str) -> None:
    left_out = NOT_BUILT[name]
    assert left_out.reason
    assert left_out.instead
    assert left_out_name(name.upper()) == name
    assert name not in ENCODERS
    assert not encoders_named(name) & ENCODERS.keys()
    for page in {left_out.page, f"hf-hub:{left_out.page}", f"hf-hub:{left_out.page}@main"} if left_out.page else ():
        assert left_out_name(page) == name
    with pytest.raises(EncoderError, match=f"{name} cannot be built here: ") as caught:
        require_buildable(name)
    assert left_out.reason in str(caught.value)
    assert left_out.instead in str(caught.value)


@pytest.mark.parametrize("name", [*ENCODERS, *(spec.source for spec in ENCODERS.values()), "resnet18", "local-dir:x"])
def test_no_other_encoder_is_taken_for_one(name: str) -> None:
    assert left_out_name(name) == ""


@pytest.mark.parametrize(
    "name", ["rudolfv2-s", "RudolfV2-S", "hf-hub:Aignostics/RudolfV-2-S", "hf-hub:wearewaiv/phaet@x"]
)
@pytest.mark.parametrize("weights", ["pretrained", "scratch"])
def test_building_one_is_refused_before_anything_is_fetched(name: str, weights: str) -> None:
    with pytest.raises(EncoderError, match=r"cannot be built here: .*g2l evaluate"):
        build_encoder(name, weights, 224)


def test_its_name_may_still_be_that_of_a_teacher_whose_features_are_imported() -> None:
    assert named_spec("hf-hub:Aignostics/RudolfV-2-S").source == "hf-hub:Aignostics/RudolfV-2-S"
