"""Run by `test_real_tools` beside STAMP: it reads `embed`'s files, trains on them, and extracts with the student.

Arguments: the folder of a clone, the student's folder, the folder of features that `g2l embed --layout stamp` wrote,
the folder of slides, a folder to work in. A slide's class is the first letter of its name; slides whose name ends with
an even digit are for training. STAMP checks each of its own annotations while it runs (beartype).
"""

import csv
import json
import sys
import tomllib
from pathlib import Path

import h5py
import lightning
import numpy as np
import timm
import torch

clone, student, features, slides, work = map(Path, sys.argv[1:6])
version = tomllib.loads((clone / "pyproject.toml").read_text())["project"]["version"]
installed = work / "site" / f"stamp-{version}.dist-info"  # STAMP asks for its version, as if pip had installed it
installed.mkdir(parents=True)
(installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stamp\nVersion: {version}\n")
sys.path[:0] = [str(clone / "src"), str(installed.parent), str(student / "adapters")]
import eva_student  # noqa: E402  (of all adapters the plainest)
from stamp.modeling.data import (  # noqa: E402
    detect_feature_type,
    filter_complete_patient_data_,
    get_coords,
    patient_to_ground_truth_from_clini_table_,
    slide_to_patient_from_slide_table_,
    tile_bag_dataloader,
)
from stamp.modeling.lightning_model import LitVisionTransformer  # noqa: E402
from stamp.preprocessing import extract_  # noqa: E402
from stamp.preprocessing.extractor import Extractor  # noqa: E402

torch.manual_seed(0)
names = sorted(path.stem for path in features.glob("*.h5"))
for table, column, of_name in (
    ("clini", "truth", lambda name: name[0]),
    ("slide", "FILENAME", lambda name: f"{name}.h5"),
):
    with open(work / f"{table}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["PATIENT", column], *([name, of_name(name)] for name in names)])
truths = patient_to_ground_truth_from_clini_table_(
    clini_table_path=work / "clini.csv", patient_label="PATIENT", ground_truth_label="truth"
)
of_slides = slide_to_patient_from_slide_table_(
    slide_table_path=work / "slide.csv", feature_dir=features, patient_label="PATIENT", filename_label="FILENAME"
)
patients = filter_complete_patient_data_(
    patient_to_ground_truth=truths, slide_to_patient=of_slides, drop_patients_with_missing_ground_truth=True
)
parts = [[patients[name] for name in names if int(name[-1]) % 2 == part] for part in (0, 1)]
training, categories = tile_bag_dataloader(
    patient_data=parts[0], bag_size=32, batch_size=4, shuffle=True, num_workers=0, transform=None
)
held_out, _ = tile_bag_dataloader(
    patient_data=parts[1],
    bag_size=None,
    categories=categories,
    batch_size=1,
    shuffle=False,
    num_workers=0,
    transform=None,
)
model = LitVisionTransformer(
    categories=categories, category_weights=torch.tensor([0.5, 0.5]), dim_input=training.dataset[0][0].shape[1],
    dim_model=512, dim_feedforward=2048, n_heads=8, n_layers=2, dropout=0.25, ground_truth_label="truth",
    train_patients=[], valid_patients=[],
)  # fmt: skip
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, training)
(scores,) = trainer.validate(model, held_out, verbose=False)

with h5py.File(features / f"{names[0]}.h5") as file:
    info, written, px = get_coords(file), file["feats"][:], int(file.attrs["tile_size_px"])
read = tile_bag_dataloader(
    patient_data=[patients[names[0]]], bag_size=None, categories=categories, batch_size=1, shuffle=False, num_workers=0,
    transform=None,
)[0].dataset[0]  # fmt: skip
loaded = eva_student.load_student()
extract_(
    wsi_dir=slides, output_dir=work, cache_dir=None, cache_tiles_ext="png", max_workers=2, device="cpu",
    extractor=Extractor(model=loaded, transform=loaded.transform, identifier="student"), tile_size_px=px,
    tile_size_um=float(info.tile_size_um), default_slide_mpp=None, brightness_cutoff=240, canny_cutoff=0.02,
    generate_hash=False,  # its defaults: without, it takes tiles beyond the slide, too, and its thumbnail fails
)  # fmt: skip
with h5py.File(work / "student" / f"{names[0]}.h5") as file:
    places = np.rint(file["coords"][:] / info.tile_size_um).astype(int)
    extracted = dict(zip(map(tuple, places), file["feats"][:], strict=True))
here = np.rint(info.coords_um / info.tile_size_um).astype(int)
own = np.stack([extracted[tuple(place)] for place in here])
said = {
    "tool": version,
    "timm": timm.__version__,
    "kind": detect_feature_type(features),
    "um/px": info.mpp,
    "read": [float(np.abs(read[0].numpy() - written).max()), float(np.abs(read[1].numpy() - info.coords_um).max())],
    "auroc": scores["validation_auroc"],
    "num": len(own),
    "extracted": float(np.abs(own.astype(np.float32) - written).max()),
}
print(json.dumps(said))
