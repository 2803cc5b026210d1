"""Read the patches of Arvaniti's tissue microarrays (TMAs) of prostate cancer.

As the authors' `create_patches.py` cuts them: `train_validation_patches_750/ZT76_39_A_1_1/
ZT76_39_A_1_1_patch_12_class_0.jpg`, and `test_patches_750/patho_1/...` by the first pathologist. Class 0 is benign, 1
to 3 are Gleason patterns 3 to 5. A folder is a core, one a patient. TMA 76 is the set's validation, TMA 80 its test;
kaiko-eva scores on TMA 76 and leaves TMA 80 out.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

PLACE = re.compile(
    r"(?P<side>train_validation_patches_750|test_patches_750/patho_1)/(?P<core>(?P<array>ZT\d+)_[A-Za-z0-9_]+)/"
    r"(?P=core)_patch_\d+_class_(?P<label>[0-3])\.jpg",
    re.ASCII,
)
EXPECTED = "train_validation_patches_750/CORE/CORE_patch_N_class_C.jpg, or below test_patches_750/patho_1"
LABEL_OF_CLASS = {"0": "benign", "1": "Gleason 3", "2": "Gleason 4", "3": "Gleason 5"}
SPLIT_OF_ARRAY = {"ZT111": "train", "ZT199": "train", "ZT204": "train", "ZT76": "val", "ZT80": "test"}
"""Split of each TMA (Arvaniti et al. 2018)."""
SECOND_PATHOLOGIST = "test_patches_750/patho_2/"


def read_members(root: Path, _images: Path, options: Mapping[str, str]) -> Members:
    """The patches: label, case and split.

    Args:
        options: `scored`, the TMA that is the test part: `ZT80`, the set's, or `ZT76`, eva's.

    Raises:
        BenchmarkError: a part of the set is missing, or a folder cannot be listed.
    """
    for part in ("train_validation_patches_750", "test_patches_750/patho_1"):
        first_folder(root, (part,), "the patches of Arvaniti's TMAs")
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    for path in images_below(root, left_out, (".jpg",)):
        match = PLACE.fullmatch(str(path))
        if str(path).startswith(SECOND_PATHOLOGIST):
            left_out.append(Exclusion(str(path), "labelled by the second pathologist", by_rule=True))
        elif match is None or (SPLIT_OF_ARRAY.get(match["array"]) == "test") != match["side"].startswith("test"):
            left_out.append(unparsed(path, EXPECTED))
        elif (split := SPLIT_OF_ARRAY.get(match["array"])) is None:
            left_out.append(Exclusion(str(path), f"{match['array']} is no TMA of the set"))
        elif split == "test" and match["array"] != options["scored"]:
            left_out.append(Exclusion(str(path), f"of {match['array']}, which is not scored here", by_rule=True))
        else:
            split = "test" if match["array"] == options["scored"] else split
            label = LABEL_OF_CLASS[match["label"]]
            rows.append({"path": str(path), "label": label, "case_id": match["core"], "split": split})
    return require_members(Members(tuple(rows), root, tuple(left_out)), root, "patch of a TMA")
