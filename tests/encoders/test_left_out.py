"""Encoders that are not in the table are refused with the reason, by any of their names, and never guessed at."""

import pytest

from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from pipeline.encoders.left_out import NOT_BUILT, is_open_address, left_out_name, require_buildable
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


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_timm_builds_by_itself_is_let_through_by_its_address_only(name: str) -> None:
    left_out = NOT_BUILT[name]
    for address in (f"hf-hub:{left_out.page}", f"hf-hub:{left_out.page}@main") if left_out.page else ():
        assert is_open_address(address) == left_out.by_address
        if left_out.by_address:
            require_buildable(address)
            assert f"--teacher hf-hub:{left_out.page}" in left_out.instead
        else:
            with pytest.raises(EncoderError, match="cannot be built here"):
                require_buildable(address)
    for word in (name, left_out.page or name):
        assert not is_open_address(word)
        with pytest.raises(EncoderError, match="cannot be built here"):
            require_buildable(word)


def test_openmidnight_is_not_offered_for_another_models_weights() -> None:
    assert "hf-hub:medarc/OpenMidnight-1.1" in NOT_BUILT["openmidnight-1.1"].instead
    assert "--weights" not in NOT_BUILT["openmidnight-1.1"].instead


def test_its_name_may_still_be_that_of_a_teacher_whose_features_are_imported() -> None:
    assert named_spec("hf-hub:Aignostics/RudolfV-2-S").source == "hf-hub:Aignostics/RudolfV-2-S"
