"""Run by `test_real_tools` beside PathoROB: its extraction by the card's command, then its scores of what that wrote.

Arguments: the folder of a clone, the student's folder, the student's card, PathoROB's table of images, a folder to work
in. Of all its code only the download of images is replaced, by the table's; and a quotation mark within an f-string,
which Python before 3.12 does not read.
"""

import json
import pickle
import re
import runpy
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import timm

clone, student, card, table, work = map(Path, sys.argv[1:6])
LOCAL = "tolkach_esca"
"""The set whose table and images are replaced by ours: no pairs of centres, one table for both scores."""
shutil.copytree(clone / "pathorob", work / "pathorob")
models = work / "pathorob" / "models" / "__init__.py"
(branch,) = re.findall(r'^elif model_name == "student":\n.*\n', card.read_text(), re.MULTILINE)
text = models.read_text()
before = text.index("    else:\n        raise ValueError")
models.write_text(text[:before] + "".join(f"    {line}\n" for line in branch.splitlines()) + text[before:])
index = work / "pathorob" / "robustness_index" / "robustness_index.py"
index.write_text(index.read_text().replace('{args_dict["model"]}', "{args_dict['model']}"))
sys.path[:0] = [str(work), str(student / "adapters")]

rows = pd.read_csv(table, dtype=str)
(work / "metadata").mkdir()
rows.drop(columns="path").to_csv(work / "metadata" / f"{LOCAL}_reduced.csv", index=False)
columns = {name: rows[name].tolist() for name in rows.columns.drop("path")}
columns["image"] = [str(table.parent / path) for path in rows["path"]]
images = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def load_images(path: str, split: str) -> datasets.Dataset:
    assert (path, split) == (f"bifold-pathomics/PathoROB-{LOCAL}", "train")
    return images


datasets.load_dataset = load_images


def run(module: str, *arguments: object) -> None:
    """As `python3 -m MODULE ARGUMENTS` runs it."""
    sys.argv = [module, *map(str, arguments)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


folders = ["--features_dir", work / "features"]
run("pathorob.features.extract_features", "--model", "student", "--datasets", LOCAL, *folders, "--device", "cpu")
stored = {key: value for path in (work / "features").rglob("*.npz") for key, value in np.load(path).items()}
folders += ["--metadata_dir", work / "metadata"]
ways = ["--num_workers", 1, "--k_opt_param", -1, "--results_dir", work / "index"]
run("pathorob.robustness_index.robustness_index", "--model", "student", "--dataset", LOCAL, *folders, *ways)
(summary,) = (work / "index").rglob("results_summary.json")
(counts,) = summary.parent.glob("frequencies-same-class*.pkl")
stats = pickle.loads(counts.read_bytes())["stats"]
ways = ["--maxK", 6, "--num_trials", 5, "--results_dir", work / "clusters"]
run("pathorob.clustering_score.clustering_score", "--model", "student", "--datasets", LOCAL, *folders, *ways)
(summary_of_clusters,) = (work / "clusters").rglob("results_summary.json")
said = {
    "timm": timm.__version__,
    "embeddings": [stored[f"{row.slide_id}-{row.patch_id}"].tolist() for row in rows.itertuples()],
    "k": json.loads(summary.read_text())["k_opt"],
    "index": dict(zip(stats["k"], map(float, stats["robustness_index"]), strict=True)),
    "clustering": json.loads(summary_of_clusters.read_text())["clustering_score_mean"],
}
print(json.dumps(said))
