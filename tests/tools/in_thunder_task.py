"""Run by `test_real_tools` beside THUNDER: its command, on images of two colours; the score of its kNN.

Arguments: the student's folder, a folder to work in.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

student, work = Path(sys.argv[1]), Path(sys.argv[2])
COLOURS = {"pink": (222, 150, 190), "violet": (98, 66, 140)}
side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
rng = np.random.default_rng(0)
splits: dict[str, dict[str, list[object]]] = {"train_few_shot": {}}
for split, count in (("train", 12), ("val", 6), ("test", 8)):
    splits[split] = {"images": [], "labels": []}
    for number in range(count):
        for label, (name, colour) in enumerate(COLOURS.items()):
            pixels = np.clip(colour + rng.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
            path = work / f"{split}-{name}-{number}.png"
            Image.fromarray(pixels).save(path)
            splits[split]["images"].append(str(path))
            splits[split]["labels"].append(label)
(work / "splits.json").write_text(json.dumps(splits))
described = {
    "dataset_name": "two_colours",
    "nb_classes": 2,
    "base_data_folder": f"{work}/",
    "data_splits": str(work / "splits.json"),
    "compatible_tasks": ["knn", "linear_probing", "pre_computing_embeddings"],  # the second: labels are classes
    **{f"nb_{split}_samples": len(splits[split]["labels"]) for split in ("train", "val", "test")},
    "image_sizes": [[side, side]],
    "mpp": 0.5,
    "cancer_type": "none",
    "classes": list(COLOURS),
    "class_to_id": {name: label for label, name in enumerate(COLOURS)},
    "id_to_class": dict(enumerate(COLOURS)),
}
(work / "data.yaml").write_text(json.dumps(described))  # JSON is YAML
(work / "base" / "outputs").mkdir(parents=True)
environment = os.environ | {"THUNDER_BASE_DATA_FOLDER": str(work / "base"), "WANDB_MODE": "offline"}
command = [
    Path(sys.executable).with_name("thunder"),
    "benchmark",
    f"custom:{student / 'adapters' / 'thunder_model.py'}",
]
for task in ("pre_computing_embeddings", "knn"):
    subprocess.run([*command, f"custom:{work / 'data.yaml'}", task], env=environment, cwd=work, check=True)
(scores,) = (json.loads(path.read_text()) for path in work.glob("base/outputs/res/*/*/knn/*/outputs.json"))
best = float(np.max([each["f1"]["metric_score"] for each in scores.values()]))
print(json.dumps({"tool": version("thunder-bench"), "f1": best}))
