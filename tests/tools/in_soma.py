"""Run by `test_real_tools` beside soma: its probe of tiles, on images of two colours.

Arguments: the student's folder, a folder to work in.
"""

import csv
import dataclasses
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

student, work = Path(sys.argv[1]), Path(sys.argv[2])
os.chdir(work)
sys.path.insert(0, str(student / "adapters"))
import slide2vec_encoder  # noqa: E402  (registers the student)
import soma  # noqa: E402
from soma.presets import tile_classification  # noqa: E402

COLOURS = {"pink": (222, 150, 190), "violet": (98, 66, 140)}
side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
rng = np.random.default_rng(0)
records, splits, images = [], [], {}
for split, count in (("train", 12), ("tune", 6), ("test", 8)):
    for number in range(count):
        for name, colour in COLOURS.items():
            images[f"{split}-{name}-{number}"] = tile = Image.fromarray(
                np.clip(colour + rng.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
            )
            tile.save(work / f"{split}-{name}-{number}.png")
            records.append([f"{split}-{name}-{number}", work / f"{split}-{name}-{number}.png", name])
            splits.append([f"{split}-{name}-{number}", split, 0])
for path, columns, rows in (
    ("dataset.csv", ["sample_id", "image_path", "label"], records),
    ("splits.csv", ["sample_id", "split", "fold"], splits),
):
    with open(work / path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
config = tile_classification(student.name)
config.features.execution = dataclasses.replace(config.features.execution, num_workers_per_gpu=0, num_gpus=1)
config.trainer.device = "cpu"
config.trainer.max_epochs = 300
config.evaluation.metrics = ["accuracy"]
result = soma.Pipeline(config).run()
model, differences = slide2vec_encoder.Student(), []
with torch.inference_mode():
    for path in work.glob("runs/feature_cache/image/*/image_embeddings/*-*.pt"):
        found, expected = torch.load(path), model(model.transform(images[path.stem])[None])[0]
        differences.append(float((found - expected).abs().max()))
assert len(differences) == len(images)
said = {"tool": version("soma-pathology"), "timm": timm.__version__, "sksurv": version("scikit-survival")}
print(json.dumps({**said, "difference": float(np.max(differences)), "accuracy": result.summary["test/accuracy"]}))
