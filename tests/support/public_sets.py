"""Miniatures of public sets: the real folders and file names, with tiny pictures of noise. No real data."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from pipeline.public_sets.members import Members
from pipeline.public_sets.recipe import find_recipe
from support.pixels import noise

BRCA_BARCODES = (
    "TCGA-A1-A0SK-01Z-00-DX1",
    "TCGA-A2-A04P-01Z-00-DX1",
    "TCGA-BH-A0B3-01Z-00-DX1",
    "TCGA-E2-A14N-01Z-00-DX1",
)


def picture(path: Path, seed: int, side: int = 16, *, tint: int = 0) -> None:
    """An image of noise; `tint` makes a class that any embedding tells apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(noise(side, side, 3, seed=seed).astype(int) // 2 + 60 + np.array([tint, -tint, 0]), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def read(name: str, root: Path, images: Path | None = None) -> Members:
    """What the reader of a set makes of a folder."""
    recipe = find_recipe(name)
    return recipe.load_reader()(root, images or root.parent / "images", recipe.reader_options)


def failed(members: Members) -> dict[str, str]:
    """Members that were left out for a fault, and why."""
    return {each.what: each.why for each in members.left_out if not each.by_rule}


def column(members: Members, name: str) -> list[str]:
    return [row[name] for row in members.rows]


def idc(root: Path, patients: int = 6, each: int = 4) -> Path:
    """Kaggle's patches: a folder a patient, a folder a class."""
    for patient in range(patients):
        for place in range(each):
            label, name = place % 2, 8863 + patient
            file = f"{name}_idx5_x{50 * place + 1}_y{1251}_class{label}.png"
            picture(root / str(name) / str(label) / file, 100 * patient + place, tint=40 if label else -40)
    return root


def breakhis(root: Path) -> Path:
    """Two types, two specimens each, one of them in two parts; two magnifications."""
    names = (("benign", "fibroadenoma", "B_F", "14-9133"), ("benign", "fibroadenoma", "B_F", "14-23060AB"))
    names += (("benign", "fibroadenoma", "B_F", "14-23060CD"), ("malignant", "ductal_carcinoma", "M_DC", "14-2523"))
    names += (("malignant", "ductal_carcinoma", "M_DC", "14-13412"),)
    for number, (side, kind, code, specimen) in enumerate(names):
        for zoom in (40, 100):
            folder = root / "BreaKHis_v1/histology_slides/breast" / side / "SOB" / kind / f"SOB_{code}_{specimen}"
            for field in (1, 2):
                name = f"SOB_{code}-{specimen}-{zoom}-{field:03d}.png"
                picture(folder / f"{zoom}X" / name, 1000 * number + zoom + field)
    return root


def bach(root: Path, numbers: Sequence[int] = (1, 42, 60, 100)) -> Path:
    for place, (folder, prefix) in enumerate({"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}.items()):
        for number in numbers:
            path = root / "ICIAR2018_BACH_Challenge/Photos" / folder / f"{prefix}{number:03d}.tif"
            picture(path, 1000 * place + number)
    return root


def bracs(root: Path) -> Path:
    for number, (split, slide) in enumerate((("train", 264), ("train", 265), ("val", 280), ("test", 291))):
        for place, label in ((0, "N"), (6, "IC")):
            name = f"BRACS_{slide}_{label}_{number + 1}.png"
            picture(root / "BRACS_RoI/latest_version" / split / f"{place}_{label}" / name, 10 * number + place)
    return root


def gleason(root: Path) -> Path:
    sides = {"ZT111_4_A_1_12": "train_validation_patches_750", "ZT199_1_B_3_4": "train_validation_patches_750"}
    sides |= {"ZT76_39_A_1_1": "train_validation_patches_750", "ZT80_38_A_1_1": "test_patches_750/patho_1"}
    for number, (core, side) in enumerate(sides.items()):
        for label in range(4):
            picture(root / side / core / f"{core}_patch_{label}_class_{label}.jpg", 10 * number + label)
    core = "ZT80_38_A_1_1"
    picture(root / "test_patches_750/patho_2" / core / f"{core}_patch_0_class_1.jpg", 99)
    return root


def tcga_tils(root: Path) -> Path:
    """Two studies, with the list of patches."""
    rows = []
    for number, barcode in enumerate(BRCA_BARCODES):
        for study in ("pancancer", "brca"):
            for label in ("til-negative", "til-positive"):
                split = ("train", "train", "val", "test")[number]
                md5 = f"{number:031x}{len(label) % 10}"
                path = f"images-tcga-tils/{study}/{split}/{label}/{barcode}_{md5}.png"
                picture(root / path, 10 * number, tint=40 if label == "til-positive" else -40)
                rows.append((split, study, barcode, label, path, md5))
    write_csv(root / "images-tcga-tils-metadata.csv", ("partition", "study", "barcode", "label", "path", "md5"), rows)
    return root


def pcam(root: Path, each: int = 4) -> Path:
    """HDF5 files of pixels and labels, and tables of slides whose first column has no name."""
    root.mkdir(parents=True, exist_ok=True)
    for split, slides in (("train", "abc"), ("valid", "d"), ("test", "ef")):
        stem, total = f"camelyonpatch_level_2_split_{split}", each * len(slides)
        with h5py.File(root / f"{stem}_x.h5", "w") as file:
            file["x"] = noise(total, 96, 96, 3, seed=total + len(split))
        with h5py.File(root / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(total, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        rows = [(i, 0, 0, bool(i % 2), bool(i % 2), f"camelyon16_{split}_{slides[i // each]}") for i in range(total)]
        header = ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
        write_csv(root / f"{stem}_meta.csv", header, rows)
    return root


def pathorob(root: Path) -> Path:
    """An export, two classes by two centres, four slides each."""
    rows = []
    for number in range(16):
        label, center = ("normal", "tumor")[number % 2], ("RUMC", "UMCU")[number // 2 % 2]
        for patch in range(2):
            rows.append(("ID", f"slide_{number}", str(patch), label, center))
            picture(root / "images" / f"slide_{number}-{patch}.png", 10 * number + patch, tint=30 * (number % 2))
    write_csv(root / "metadata.csv", ("subset", "slide_id", "patch_id", "biological_class", "medical_center"), rows)
    return root


def tiger(root: Path) -> Path:
    """A region a slide of 2 x 2 tiles: tumour, stroma of two kinds, and one that no class covers."""
    for number, barcode in enumerate(BRCA_BARCODES):
        name = f"{barcode}.A44D70FA-4D96-43F4-9DD7-A6153578629{number}_[{100 * number}, 0, 460, 460].png"
        mask = np.zeros((460, 460), dtype=np.uint8)
        mask[:224, :224], mask[:224, 224:448], mask[224:448, :224] = 1, 2, 6
        mask[224:448, :112] = 2
        mask[224:448, 224:300] = 7
        folder = root / "wsirois/roi-level-annotations/tissue-bcss"
        picture(folder / "images" / name, number, 460)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / name)
    return root


def chimera(root: Path, patients: int = 4) -> Path:
    for patient in range(1003, 1003 + patients):
        folder = root / "task1/pathology/images" / str(patient)
        folder.mkdir(parents=True)
        for name in (f"{patient}_1.tif", f"{patient}_1_tissue.tif", f"{patient}_2.tif"):
            (folder / name).write_bytes(b"")
        (root / "task1/clinical_data").mkdir(exist_ok=True)
        record = {"age_at_prostatectomy": 61, "BCR": f"{patient % 2}.0", "time_to_follow-up/BCR": 12.5}
        (root / "task1/clinical_data" / f"{patient}.json").write_text(json.dumps(record))
    return root


def tcga_labels(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    statuses = ("mutated", "wild-type", "unknown", "mutated")
    rows = [(b, f"x/{b}.svs", b[:12], "north", status) for b, status in zip(BRCA_BARCODES, statuses, strict=True)]
    write_csv(root / "tcga_brca.csv", ("slide_id", "path", "case_id", "center", "tp53"), rows)
    return root


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
