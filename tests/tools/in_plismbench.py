"""Run by `test_real_tools` beside plismbench: the student's embeddings by its own extraction, and its cosine of them.

Its data set is a download of 16,278 tiles a slide: its loop runs over a file of the same form with a few. Its list of
models is replaced by one with the student.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import timm
import torch
from packaging.version import Version

source, folder, oldest = Path(sys.argv[1]), Path(sys.argv[2]), Version(sys.argv[3])
sys.path[:0] = [str(source), str(folder / "adapters")]
models = ModuleType("plismbench.models")  # its own imports the packages of every model
models.__path__ = [str(source / "plismbench" / "models")]
models.FeatureExtractorsEnum = {}
sys.modules["plismbench.models"] = models
from plismbench.engine.extract import extract_from_h5, utils  # noqa: E402
from plismbench.engine.extract.utils import process_imgs, sort_coords  # noqa: E402
from plismbench.metrics.cosine_similarity import CosineSimilarity  # noqa: E402

expected = np.load(folder / "expected.npz")
said = {"tool": "plismbench", "timm": timm.__version__, "differences": []}
if Version(timm.__version__) >= oldest:
    from plismbench_extractor import StudentExtractor

    extractor = StudentExtractor(device=-1)
    patches, names = expected["patches"], [f"slide_{i}_{i}_{i}" for i in range(len(expected["patches"]))]
    rows = sort_coords(process_imgs(torch.stack([extractor.transform(patch) for patch in patches]), names, extractor))
    assert rows[:, 0].tolist() == list(range(len(patches)))
    with tempfile.TemporaryDirectory() as work:
        with h5py.File(Path(work, "slide_to_GMH_S60.tif.h5"), "w") as file:
            for name, patch in zip(names, patches, strict=True):
                file[name] = patch
        for module in (extract_from_h5, utils):
            module.NUM_TILES_PER_SLIDE = len(patches)
        models.FeatureExtractorsEnum["STUDENT"] = SimpleNamespace(init=StudentExtractor)
        run = {"batch_size": 2, "device": -1, "download_dir": Path(work), "export_dir": Path(work), "workers": 0}
        extract_from_h5.run_extract_h5("student", **run)
        (written,) = Path(work).glob("*/features.npy")
        assert np.array_equal(np.load(written)[:, 0], rows[:, 0])
        by_loop = float(np.abs(np.load(written)[:, 3:] - expected["embeddings"]).max())
    said["differences"] = [float(np.abs(rows[:, 3:] - expected["embeddings"]).max()), by_loop]
    said["score"] = CosineSimilarity("cpu").compute_metric(rows[:, 3:].astype(np.float32), expected["embeddings"])
print(json.dumps(said))
