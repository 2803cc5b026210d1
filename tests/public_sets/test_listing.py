"""`g2l reproduce --list`."""

from pipeline.public_sets.listing import list_sets
from pipeline.public_sets.recipe import left_out_sets, set_recipes


def test_every_set_is_listed_with_its_terms() -> None:
    text = list_sets()
    for name, recipe in set_recipes().items():
        assert f"{name}: {recipe.title}" in text
        assert recipe.terms in text
        assert recipe.url in text
    for name, why in left_out_sets().items():
        assert f"{name}: {why}" in text
    assert "whole: 277,524 patches (the set's page on Kaggle)" in text
    assert "whole: 151 slides" in text
    assert text.count("not known here") == 2  # CHIMERA and PathoROB's TCGA; a variant has a line only
