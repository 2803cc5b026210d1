"""Run by `test_real_tools` beside CLAM: its MIL data set and loader on the files of `g2l embed --layout clam`."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(source))
from dataset_modules.dataset_generic import Generic_MIL_Dataset  # noqa: E402
from utils.utils import get_simple_loader  # noqa: E402

slides = sorted(path.stem for path in (folder / "h5_files").iterdir())
table = folder / "labels.csv"
rows = [f"case {name},{name},{'ab'[i % 2]}" for i, name in enumerate(slides)]
table.write_text("\n".join(["case_id,slide_id,label", *rows, ""]))
dataset = Generic_MIL_Dataset(folder, csv_path=str(table), label_dict={"a": 0, "b": 1}, print_info=False)
expected = {}
for name in slides:
    with h5py.File(folder / "h5_files" / f"{name}.h5") as file:
        expected[name] = file["features"][()]
differences = []
for i, (features, labels) in enumerate(get_simple_loader(dataset)):  # from pt_files
    assert labels.tolist() == [i % 2]
    differences.append(float(np.abs(features.numpy() - expected[slides[i]]).max()))
dataset.load_from_h5(True)
for i, name in enumerate(slides):
    features, label, coords = dataset[i]
    assert (label, coords.shape) == (i % 2, (len(expected[name]), 2))
    differences.append(float(np.abs(features.numpy() - expected[name]).max()))
print(json.dumps({"tool": "CLAM", "differences": differences}))
