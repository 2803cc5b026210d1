"""The robustness benchmark: what it sees of its inputs before anything is computed."""

from pathlib import Path

import pytest
from PIL import Image
from support.labelled_patches import config, noise

from pipeline.base.errors import G2LError
from stages.evaluate import look_at_inputs


def test_a_k_that_is_too_large_is_seen_early(tmp_path: Path) -> None:
    rows = ["path,slide_id,patch_id,biological_class,medical_center,subset"]
    for subset, per_slide in (("one", 2), ("two", 1)):
        for slide in range(4):
            for patch in range(per_slide):
                name = f"{subset}{slide}{patch}"
                Image.fromarray(noise(len(rows))).save(tmp_path / f"{name}.png")
                rows.append(f"{name}.png,{subset}{slide},{name},{'xy'[slide % 2]},{'mn'[slide // 2]},{subset}")
    path = tmp_path / "robustness.csv"
    path.write_text("\n".join(rows) + "\n")
    look_at_inputs(config(robustness=path, ri_k=3))
    with pytest.raises(G2LError, match="only 3 patches of other slides within subset 'two'; take a k of at most 3"):
        look_at_inputs(config(robustness=path, ri_k=4))
