"""Run by `test_real_tools` beside Patho-Bench: its data set reads `embed`'s files, its linear probe scores their means.

Arguments: the folder of a clone, the folder of features that `g2l embed --layout trident` wrote, a folder to work in.
A slide's class is the first letter of its name; a slide whose name ends with an odd digit is for testing. Patho-Bench
pools by TRIDENT's slide encoders, on a GPU only: the mean over patches, its simplest, is taken here.
"""

import csv
import json
import sys
from pathlib import Path

import h5py
import numpy as np

clone, features, work = map(Path, sys.argv[1:4])
sys.path.insert(0, str(clone))
from patho_bench.datasets.BaseDataset import BaseDataset  # noqa: E402
from patho_bench.datasets.DataSplit import DataSplit  # noqa: E402
from patho_bench.datasets.PatchEmbeddingsDataset import PatchEmbeddingsDataset  # noqa: E402
from patho_bench.experiments.LinearProbeExperiment import LinearProbeExperiment  # noqa: E402

names = sorted(path.stem for path in features.glob("*.h5"))
CLASSES = sorted({name[0] for name in names})
with open(work / "split.csv", "w", newline="") as file:
    rows = [[name, name, CLASSES.index(name[0]), ("train", "test")[int(name[-1]) % 2]] for name in names]
    csv.writer(file).writerows([["case_id", "slide_id", "kind", "fold_0"], *rows])
split = DataSplit(str(work / "split.csv"), id_col="slide_id", attr_cols=["slide_id"], label_cols=["kind"])
patches = PatchEmbeddingsDataset(split, str(features))


class Means(BaseDataset):
    """One row a slide, as the probe wants it."""

    def __getitem__(self, place: int) -> dict:
        name = self.ids[place]
        pooled = patches[name]["features"].reshape(-1, patches[name]["features"].shape[-1]).float().mean(0)
        return {"id": name, "slide": {"features": pooled}, "labels": self.data[name]["labels"]}


differences = []
for name in names:
    with h5py.File(features / f"{name}.h5") as file:
        same = (
            patches[name]["features"].numpy() - file["features"][:],
            patches[name]["coords"].numpy() - file["coords"][:],
        )
        differences.append(float(np.max([np.abs(each).max() for each in same])))
        assert patches[name]["attributes"]["patch_size_level0"] == file["coords"].attrs["patch_size_level0"]
probe = LinearProbeExperiment(
    Means(split), task_name="kind", num_classes=len(CLASSES), num_bootstraps=20, cost=1, max_iter=1000,
    balanced_class_weights=False, results_dir=str(work),
)  # fmt: skip
probe.train()
probe.test()
scores = json.loads((work / "test_metrics_summary.json").read_text())
said = {"differences": differences, "auc": scores["macro-ovr-auc"]["mean"], "accuracy": scores["bacc"]["mean"]}
print(json.dumps(said))
