"""Run by `test_real_tools` beside plismbench: the student's embeddings by its own extraction, and its cosine of them.

plismbench's loop over its data set is a download; `process_imgs` is what it calls for each batch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from packaging.version import Version

source, folder, oldest = Path(sys.argv[1]), Path(sys.argv[2]), Version(sys.argv[3])
sys.path[:0] = [str(source), str(folder / "adapters")]
from plismbench.engine.extract.utils import process_imgs, sort_coords  # noqa: E402
from plismbench.metrics.cosine_similarity import CosineSimilarity  # noqa: E402

expected = np.load(folder / "expected.npz")
said = {"tool": "plismbench", "timm": timm.__version__, "differences": []}
if Version(timm.__version__) >= oldest:
    from plismbench_extractor import StudentExtractor

    extractor = StudentExtractor(device=-1)
    images = torch.stack([extractor.transform(patch) for patch in expected["patches"]])
    names = [f"slide_{i}_{i}_{i}" for i in range(len(images))]
    rows = sort_coords(process_imgs(images, names, model=extractor))
    assert rows[:, 0].tolist() == list(range(len(images)))
    said["differences"] = [float(np.abs(rows[:, 3:] - expected["embeddings"]).max())]
    said["score"] = CosineSimilarity("cpu").compute_metric(rows[:, 3:].astype(np.float32), expected["embeddings"])
print(json.dumps(said))
