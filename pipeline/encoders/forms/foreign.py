"""What training writes that is no file of tensors by name, and how to get one from it.

Known are the checkpoints of torch.distributed.checkpoint (DINOv3's training and evaluation: dinov3/checkpointer), of
DINOv2's FSDP (one file a GPU, of flat parameters without names), LightlyTrain's `.ckpt` and models (pickled modules),
and pointers of Git LFS. A pickle is never run: what names tensors there is code. Without torch.
"""

import re
import zipfile
from pathlib import Path

RANK_FILE = re.compile(r"\.rank_\d+\.pth$")
"""What DINOv2 calls the part of one GPU (dinov2/fsdp/__init__.py, FSDPCheckpointer)."""
DISTRIBUTED_ENDING = ".distcp"
DISTRIBUTED_MARK = ".metadata"
"""What torch.distributed.checkpoint calls a part, and the list of tensors beside the parts."""
LFS_MARK = b"version https://git-lfs"
LIGHTLY_MARK = b"lightly_train"
LIGHTLY_EXPORT = "exported_models/exported_last.pt"
"""Where LightlyTrain puts the weights at the end of its training (lightly_train/_commands/train_task.py, train.py)."""
MOST_PICKLE_BYTES = 1 << 24
"""How much of a description is looked through for the mark. Our choice: it stands near the beginning."""


def way_from_folder(folder: Path) -> str:
    """What to do with a folder in which no file of weights is; "" if it is not known."""
    if (folder / DISTRIBUTED_MARK).is_file() and any(folder.glob(f"*{DISTRIBUTED_ENDING}")):
        return _way_from_distributed(folder)
    if (folder / LIGHTLY_EXPORT).is_file():
        return f". It is a run of LightlyTrain: give {folder / LIGHTLY_EXPORT}"
    return ""


def way_from_file(path: Path) -> str:
    """What to do with a file that holds other things than tensors by name; "" if it is not known.

    The file has been checked as an archive, if it is one.
    """
    if path.suffix == DISTRIBUTED_ENDING or path.name == DISTRIBUTED_MARK:
        return _way_from_distributed(path.parent)
    if RANK_FILE.search(path.name):
        return (
            ". It is the part of one GPU in a training of DINOv2's; the teacher is whole in "
            "eval/training_N/teacher_checkpoint.pth of that training"
        )
    if _is_of_lightly(path):
        return (
            ". It is a model of LightlyTrain's with its code; write the weights alone: lightly-train export "
            f"out=weights.pth checkpoint={path} part=model format=torch_state_dict"
        )
    return ""


def _way_from_distributed(folder: Path) -> str:
    return (
        ". It is a checkpoint of torch.distributed, whose list of tensors is a pickle, and so not read. Where you "
        "trust it, turn it into a file: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        f"{folder} weights.pth"
    )


def _is_of_lightly(path: Path) -> bool:
    """Whether the description in a file of `torch.save` names LightlyTrain's code."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as f:
                return LIGHTLY_MARK in f.read(MOST_PICKLE_BYTES)
    except Exception:  # noqa: BLE001  (no archive, or a damaged one: nothing is known of it)
        return False
