"""A small piece of work for each command that can be continued, and what it leaves behind.

Each takes one or two seconds on a free core, and writes dozens of files: a signal at a random moment meets it anywhere.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pipeline.cohort.plan_hdf5 import write_plan
from support.extraction import PATCH_PX, TEACHER, extract, plan_cohort, write_cohort, write_teacher
from support.features import slides_of, write_trident
from support.public_sets import tiger
from support.stores import dropping_cnn, flags, make_patches, make_store, plain_vit, train_config

CPU = ["--device", "cpu", "--workers", 2]
OF_THE_CLOCK = ("seconds", "time", "run")
"""Keys of JSON files that say when and how fast: the only ones that may differ between two runs."""
CLOCKED_FILES = ("*/report.html",)
"""Files that hold such values among others. `report.json` has all that the page shows."""
UNLIKE_NAMES = ("*/tensorboard/*",)
"""Files whose very names say when they were written."""
PASSING = (".g2l-", "probe", "lock", "tmp", ".part", "~")
"""What names of files that must not stay hold: locks, parts, proofs that a folder can be written."""


@dataclass(frozen=True)
class Workload:
    """A command that makes its outputs in the folder `place`.

    Attributes:
        command: its name.
        arguments: all words after `g2l`.
        place: an own folder; whatever the command leaves behind lies in it.
        once: a file that stands for the whole, where the command refuses to run again once it is there.
    """

    command: str
    arguments: list[object]
    place: Path
    once: Path | None = None

    def empty(self) -> None:
        """Empty the place."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def is_finished(self) -> bool:
        """Whether the command would refuse to run again."""
        return self.once is not None and self.once.exists()

    def results(self) -> dict[str, Any]:
        """All files by name; of each its bytes, or its content without what the clock says; folders as `None`."""
        return {name: content_of(path, name) for name, path in self._paths()}

    def passing(self) -> dict[str, tuple[int, int]]:
        """Files that must not stay, as of a lock or a write that is under way; which file each is, and when written."""
        found = {}
        for name, path in self._paths():
            if any(part in path.name.lower() for part in PASSING):
                stat = path.lstat()
                found[name] = (stat.st_ino, stat.st_mtime_ns)
        return found

    def _paths(self) -> list[tuple[str, Path]]:
        paths = [(str(path.relative_to(self.place)), path) for path in sorted(self.place.rglob("*"))]
        return [(name, path) for name, path in paths if not matches(name, UNLIKE_NAMES)]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name below the place fits one of the patterns."""
    return any(fnmatch("/" + name, pattern) for pattern in patterns)


def content_of(path: Path, name: str) -> Any:
    """What must be the same in every run."""
    if path.is_dir() or matches(name, CLOCKED_FILES):
        return None
    if path.parent.name == "checkpoints":
        return checkpoint_content(path)
    data = path.read_bytes()
    return without_clock(json.loads(data)) if path.suffix == ".json" else data


def checkpoint_content(path: Path) -> Any:
    """What a checkpoint holds, to the bit. Its bytes also depend on which objects torch finds to be the same one."""
    if path.suffix == ".json":
        return json.loads(path.read_text())["step"]
    return plain(torch.load(path, map_location="cpu", weights_only=True))


def plain(value: Any) -> Any:
    """A value that can be compared, with each tensor as its type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return [(str(key), plain(inner)) for key, inner in value.items()]
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def without_clock(value: Any) -> Any:
    """A JSON value without the keys that the clock decides, as deep as they are."""
    if isinstance(value, dict):
        return {key: without_clock(inner) for key, inner in value.items() if key not in OF_THE_CLOCK}
    return [without_clock(inner) for inner in value] if isinstance(value, list) else value


# --- one for each command -------------------------------------------------------------------------------------


def plan_work(folder: Path, place: Path) -> list[object]:
    manifest = write_cohort(folder / "slides", 8, width=1200, height=900, downsamples=(1, 4))
    return [
        "plan",
        manifest,
        "--out",
        place / "plan.h5",
        "--patch-px",
        PATCH_PX,
        "--val-fraction",
        0.5,
        "--workers",
        2,
        "--overlays",
        place / "overlays",
    ]


def extract_work(folder: Path, place: Path) -> list[object]:
    manifest = write_cohort(folder / "slides", width=640, height=640)
    write_plan(plan_cohort(manifest, patches_per_slide=80), folder / "plan.h5")
    return [
        "extract-teacher",
        folder / "plan.h5",
        "--out",
        place / "store.zarr",
        *teacher(folder),
        *CPU,
        "--rows-per-shard",
        4,
        "--batch-size",
        4,
    ]


def import_work(folder: Path, place: Path) -> list[object]:
    manifest = write_cohort(folder / "slides", width=640, height=640)
    plan = plan_cohort(manifest, patches_per_slide=80)
    words = teacher(folder)
    store = extract(plan, folder / "extracted.zarr", Path(str(words[-1])), dtype="float32").store
    features = write_trident(folder / "features", slides_of(store))
    return [
        "import-features",
        features,
        "--out",
        place / "store.zarr",
        "--slides-root",
        folder / "slides",
        "--manifest",
        manifest,
        *words,
        *CPU,
        "--rows-per-shard",
        4,
        "--val-fraction",
        0.5,
    ]


def train_work(folder: Path, place: Path) -> list[object]:
    store = make_store(folder / "store.zarr").folder
    config = train_config(dropping_cnn(folder / "cnn"), epochs=3, batch_size=8, checkpoint_every=4, augment="flips")
    return ["train-student", store, "--out", place / "run", *flags(config)]


def embed_work(folder: Path, place: Path) -> list[object]:
    write_cohort(folder / "slides", 6, width=640, height=512)
    model = f"tiny={TEACHER}@{teacher(folder)[-1]}"
    return [
        "embed",
        model,
        folder / "slides",
        "--out",
        place / "features",
        "--layout",
        "trident",
        *CPU,
        "--patch-px",
        PATCH_PX,
        "--mpp",
        0.5,
        "--batch-size",
        8,
        "--min-tissue",
        0,
    ]


def evaluate_work(folder: Path, place: Path) -> list[object]:
    """Fidelity and patches: two models, each embedded twice, their embeddings kept."""
    plan = plan_cohort(write_cohort(folder / "slides", 4), patches_per_slide=8)
    words = teacher(folder)
    store = extract(plan, folder / "store.zarr", Path(str(words[-1]))).store.folder
    student = write_teacher(folder / "other.safetensors", seed=1)
    models = ["--models", f"teacher={TEACHER}@{words[-1]}", "--models", f"student={TEACHER}@{student}"]
    return [
        "evaluate",
        "--out",
        place / "report",
        *models,
        "--store",
        store,
        "--patches",
        write_patch_table(folder),
        "--no-cost",
        "--device",
        "cpu",
        "--resamples",
        100,
        "--draws",
        5,
        "--folds",
        2,
    ]


def reproduce_work(folder: Path, place: Path) -> list[object]:
    """A set whose images are cut out of regions, scored for robustness."""
    root, weights = tiger(folder / "set"), write_teacher(folder / "teacher.safetensors")
    model = ["--models", f"tiny={TEACHER}@{weights}", "--patch-px", PATCH_PX]
    return ["reproduce", "tiger", "--root", root, "--out", place / "out", *model, *CPU, "--no-cost", "--resamples", 100]


def ablate_work(folder: Path, place: Path) -> list[object]:
    """Two settings, two seeds: four runs."""
    return ["ablate", *study_words(folder, place), "--vary", "loss=mse,cosine", "--seeds", 2]


def curve_work(folder: Path, place: Path) -> list[object]:
    """Two points, one seed: two runs."""
    words = ["--over", "slides", "--slides", "2,4", "--seeds", 1, "--resamples", 100]
    return ["curve", *study_words(folder, place), *words]


def study_words(folder: Path, place: Path) -> list[object]:
    """A store, the folder of a study, and the options of its runs, which stop for a checkpoint every other step."""
    store = make_store(folder / "store.zarr", train=(12,) * 4, val=(6,) * 4).folder
    config = train_config(plain_vit(folder / "vit"), epochs=1, batch_size=12, checkpoint_every=2)
    return [store, "--out", place / "study", *flags(config)]


def teacher(folder: Path) -> list[object]:
    """The options that name a tiny teacher; the last is the file of its weights."""
    return ["--teacher", TEACHER, "--weights", write_teacher(folder / "teacher.safetensors")]


def write_patch_table(folder: Path) -> Path:
    """32 images of two classes, told apart by colour, of 8 cases, and their table; returns the table."""
    (folder / "images").mkdir()
    lines = ["path,label,group"]
    for i, patch in enumerate(make_patches(32, PATCH_PX, seed=1)):
        patch[..., i % 2] //= 2
        Image.fromarray(patch).save(folder / "images" / f"{i}.png")
        lines.append(f"images/{i}.png,{('normal', 'tumour')[i % 2]},case {i % 8}")
    (folder / "patches.csv").write_text("\n".join(lines) + "\n")
    return folder / "patches.csv"


WORK: dict[str, Callable[[Path, Path], list[object]]] = {
    "plan": plan_work,
    "extract-teacher": extract_work,
    "import-features": import_work,
    "train-student": train_work,
    "embed": embed_work,
    "evaluate": evaluate_work,
    "reproduce": reproduce_work,
    "ablate": ablate_work,
    "curve": curve_work,
}


def make_workload(command: str, folder: Path) -> Workload:
    """The work of a command, with all that it reads, below `folder`."""
    inputs, place = folder / "inputs", folder / "place"
    inputs.mkdir(parents=True)
    arguments = WORK[command](inputs, place)
    return Workload(command, arguments, place, place / "plan.h5" if command == "plan" else None)
