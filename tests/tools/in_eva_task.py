"""Run by `test_real_tools` beside kaiko-eva: its command `predict_fit` with the exported `eva.yaml`.

On made-up images in the folders of CRC, a colour for each of its nine classes. Eva's check that CRC is whole is left
out. Arguments: the student's folder, a folder to work in. Says the head's accuracy, and how far the embeddings that eva
wrote are from the student's own.
"""

import csv
import itertools
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
FOLDERS = {"NCT-CRC-HE-100K": 12, "CRC-VAL-HE-7K": 6}
"""CRC's two parts, and how many images of each class are made for them."""


def make_images(root: Path, side: int) -> None:
    """A colour a class, with noise. Names are not those of the other part: eva writes both into one folder."""
    rng = np.random.default_rng(0)
    colours = [*itertools.product((70, 220), repeat=3), (145, 145, 145)]
    for folder, count in FOLDERS.items():
        for name, colour in zip(CLASSES, colours, strict=True):
            (root / folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + rng.normal(0, 15, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / folder / name / f"{folder}-{name}-{number}.tif")


def main() -> None:
    """Run the command, and read what it wrote."""
    student, work = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(student / "adapters"))
    side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
    make_images(work / "data", side)
    settings = {"N_RUNS": 1, "MAX_STEPS": 600, "BATCH_SIZE": 9, "N_DATA_WORKERS": 1, "DOWNLOAD_DATA": "false"}
    folders = {"DATA_ROOT": "data", "OUTPUT_ROOT": "logs", "EMBEDDINGS_ROOT": "embeddings"}
    os.environ.update({name: str(value) for name, value in settings.items()})
    os.environ.update({name: str(work / folder) for name, folder in folders.items()})

    from eva.__main__ import main as command  # after the environment, which the configuration is read with
    from eva.vision import datasets

    datasets.CRC.validate = lambda self: None
    sys.argv[1:] = ["predict_fit", "--config", str(student / "adapters" / "eva.yaml")]
    command()

    (written,) = (work / "logs").rglob("results.json")
    results = json.loads(written.read_text())
    with open(work / "embeddings" / "manifest.csv") as f:
        rows = list(csv.DictReader(f))
    import eva_student

    model, differences = eva_student.load_student(), []
    for row in rows[:: len(rows) // 20]:
        kept = torch.load(work / "embeddings" / row["embeddings"])
        kept = kept[0] if isinstance(kept, list) else kept
        name = Path(row["origin"]).name
        (image,) = (work / "data").rglob(name)
        with torch.inference_mode():
            own = model(model.transform(Image.open(image))[None])
        differences.append(float((kept.flatten() - own.flatten()).abs().max()))
    said = {name: version(name) for name in ("kaiko-eva", "jsonargparse")}
    accuracy = results["metrics"]["val"][0]["val/MulticlassAccuracy"]["mean"]
    print(json.dumps({**said, "num": len(rows), "differences": differences, "accuracy": accuracy}))


if __name__ == "__main__":  # the loader's workers import this file
    main()
