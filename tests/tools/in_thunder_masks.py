"""Run by `test_real_tools` beside THUNDER: its segmentation head, on masks of images of two colours; its scores.

Arguments: the student's folder, a folder to work in. Its head is trained for a few epochs at one learning rate, not for
200 at nine: all else is as `thunder benchmark MODEL DATASET segmentation` does it.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

student, work = Path(sys.argv[1]), Path(sys.argv[2])
COLOURS = np.array([(222, 150, 190), (98, 66, 140)])
SIDE = 3 * json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
"""Of the images, which are read as nine patches each."""
rng = np.random.default_rng(0)
splits: dict[str, dict[str, list[object]]] = {"train_few_shot": {}}
for split, count in (("train", 4), ("val", 2), ("test", 2)):
    splits[split] = {"images": [], "labels": []}
    for number in range(count):
        edges = rng.integers(0, SIDE, 2)
        mask = (np.add.outer(np.arange(SIDE) > edges[0], np.arange(SIDE) > edges[1]) % 2).astype(np.uint8)
        pixels = np.clip(COLOURS[mask] + rng.normal(0, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        paths = [work / f"{split}-{number}.png", work / f"{split}-{number}-mask.png"]
        for path, image in zip(paths, (pixels, mask), strict=True):
            Image.fromarray(image).save(path)
        side = SIDE // 3
        places = [(top, top + side, left, left + side) for top in range(0, SIDE, side) for left in range(0, SIDE, side)]
        splits[split]["images"] += [[str(paths[0]), *place] for place in places]
        splits[split]["labels"] += [[str(paths[1]), *place] for place in places]
(work / "splits.json").write_text(json.dumps(splits))
described = {
    "dataset_name": "two_colours",
    "nb_classes": 2,
    "base_data_folder": f"{work}/",
    "data_splits": str(work / "splits.json"),
    "compatible_tasks": ["pre_computing_embeddings", "segmentation"],
    **{f"nb_{split}_samples": len(splits[split]["labels"]) for split in ("train", "val", "test")},
    "image_sizes": [[SIDE, SIDE]],
    "mpp": 0.5,
    "cancer_type": "none",
    "classes": ["pink", "violet"],
    "class_to_id": {"pink": 0, "violet": 1},
    "id_to_class": {0: "pink", 1: "violet"},
}
(work / "data.yaml").write_text(json.dumps(described))  # JSON is YAML
(work / "base" / "outputs").mkdir(parents=True)
os.environ |= {"THUNDER_BASE_DATA_FOLDER": str(work / "base"), "WANDB_MODE": "offline"}
os.chdir(work)

import wandb  # noqa: E402  (both read the environment)
from thunder import benchmark  # noqa: E402

few = {"adaptation.epochs": 12, "adaptation.lr": [1e-3], "adaptation.weight_decay": [0.0], "adaptation.num_workers": 0}
benchmark(f"custom:{student / 'adapters' / 'thunder_model.py'}", f"custom:{work / 'data.yaml'}", "segmentation", **few)
wandb.finish()
(scores,) = (json.loads(path.read_text()) for path in work.glob("base/outputs/res/*/*/segmentation/*/outputs.json"))
print(json.dumps({"tool": version("thunder-bench"), "scores": scores}))
