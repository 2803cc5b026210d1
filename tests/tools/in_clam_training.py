"""Run by `test_real_tools` beside CLAM: its model and its training loop on the files of `g2l embed --layout clam`.

Arguments: the folder of a clone, the folder of `embed`. A slide's class is the first letter of its name; a slide whose
name ends with an odd digit is for testing.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

import torch

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(source))
from dataset_modules.dataset_generic import Generic_MIL_Dataset, Generic_Split  # noqa: E402
from models.model_clam import CLAM_SB  # noqa: E402
from utils.core_utils import summary, train_loop_clam  # noqa: E402
from utils.utils import get_optim, get_split_loader  # noqa: E402

torch.manual_seed(0)
slides = sorted(path.stem for path in (folder / "pt_files").iterdir())
table = folder / "labels.csv"
table.write_text("\n".join(["case_id,slide_id,label", *(f"{name},{name},{name[0]}" for name in slides), ""]))
classes = {name: number for number, name in enumerate(sorted({name[0] for name in slides}))}
data = Generic_MIL_Dataset(folder, csv_path=str(table), label_dict=classes, print_info=False).slide_data
is_odd = data["slide_id"].str[-1].astype(int) % 2 == 1
train, test = (
    Generic_Split(rows.reset_index(drop=True), data_dir=str(folder)) for rows in (data[~is_odd], data[is_odd])
)
model = CLAM_SB(embed_dim=train[0][0].shape[1], n_classes=2)
optimizer = get_optim(model, Namespace(opt="adam", lr=1e-3, reg=1e-5))  # its rate is 1e-4, for 200 epochs
for epoch in range(20):
    loader = get_split_loader(train, training=True)
    train_loop_clam(epoch, model, loader, optimizer, 2, 0.7, None, torch.nn.CrossEntropyLoss())
_, error, auc, _ = summary(model, get_split_loader(test), 2)
print(json.dumps({"tool": "CLAM", "slides": [len(train), len(test)], "auc": float(auc), "error": error}))
