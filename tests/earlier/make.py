"""Make the archive of outputs by which `test_earlier_outputs.py` shows that what an earlier version wrote still opens.

    PYTHONPATH=.:tests python tests/earlier/make.py tests/earlier/0.1.0.tar.xz

Run it with the code of the version that the archive is to stand for; an archive is never made anew by later code. It
holds, below one folder from which every command was called with relative paths:

    slides/ slides.csv plan.h5         two slides, their manifest and plan
    teacher/ second/ student/          architectures (`local-dir:`) and weights of two teachers and a student
    store.zarr                         views, pixels, and a further teacher
    trident/ imported.zarr             a teacher's features in TRIDENT's layout, and the store imported from them
    run/                               a run, with a checkpoint before its last
    exported/                          the run's student, with adapters
    features/                          the student's embeddings of the slides, in TRIDENT's layout
    patches/ patches.csv report/       a patch benchmark and the report of an evaluation (without page and pictures)

Files that are the same in all versions lie in `shared.tar.xz` and are left out, and so are those of the archive that
this one completes (`BASES` in `support/earlier.py`): `0.2.0-student-json`, of the code after the move into rooms, holds
only what differs from `0.2.0`, of the code before it.
"""

import csv
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import safetensors.torch
import timm
import torch
from PIL import Image
from support.commands import succeed
from support.earlier import archives_of
from support.slides import make_slide

PATCH_PX = 32
ARCHITECTURES = {"teacher": 16, "second": 8, "student": 8}
"""Widths of the ViTs, small enough that three sets of weights take little room."""
SLIDES, CPU, LAYOUT = "--slides-root slides", "--device cpu --workers 1", "--layout trident"
PATCHES = f"--patch-px {PATCH_PX} --mpp 1"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]
"""Of xz: most of the bytes are numbers of four bytes."""


def main(out: Path) -> None:
    """Make everything in a temporary folder and pack it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_inputs()
        make_outputs()
        pack(Path(folder), out)
    print(f"{out}: {out.stat().st_size:,} bytes")


def make_inputs() -> None:
    """Slides, models and a patch benchmark."""
    make_slides()
    for seed, (name, width) in enumerate(ARCHITECTURES.items()):
        make_model(Path(name), width, seed)
    make_benchmark()


def make_slides() -> None:
    Path("slides").mkdir()
    lines = ["slide_id,path,case_id,center"]
    for i, name in enumerate(("a", "b", "c")):
        slide = {"width": 384, "height": 320, "mpp": 1.0, "downsamples": (1,), "tile": 64, "quality": 50, "seed": i}
        make_slide(Path("slides") / f"{name}.svs", **slide)
        lines.append(f"{name},{name}.svs,case_{name},{'north' if i else 'south'}")
    Path("slides.csv").write_text("\n".join(lines) + "\n")


def make_benchmark() -> None:
    """24 patches of eight cases in two centres and their table."""
    Path("patches").mkdir()
    with open("patches.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["path", "label", "case_id", "center"])
        for i in range(24):
            tint = (200, 120 + 5 * i, 180) if i % 2 else (120 + 4 * i, 110, 190)
            Image.effect_noise((8, 8), 20 + i).resize((PATCH_PX, PATCH_PX)).convert("RGB").point(
                [min(255, v * t // 160) for t in tint for v in range(256)]
            ).save(Path("patches") / f"{i:02}.png")
            writer.writerow([f"patches/{i:02}.png", "odd" if i % 2 else "even", f"case_{i // 3}", "ns"[i // 12]])


def make_model(folder: Path, width: int, seed: int) -> None:
    """A small ViT as timm's local folder, with random weights."""
    arguments = {"img_size": PATCH_PX, "depth": 1, "embed_dim": width, "num_heads": 2, "mlp_ratio": 2.0}
    folder.mkdir()
    torch.manual_seed(seed)
    model = timm.create_model("test_vit", num_classes=0, **arguments)
    state = {name: value.normal_(0, 0.2) if value.ndim > 1 else value for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {
            "architecture": "test_vit",
            "input_size": [3, PATCH_PX, PATCH_PX],
            "fixed_input_size": True,
            "mean": [0.6, 0.5, 0.55],
            "std": [0.25, 0.2, 0.3],
            "num_classes": 0,
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def make_outputs() -> None:
    """Every output that users keep, by the commands that make it."""
    run_command(f"plan slides.csv {SLIDES} --out plan.h5 {PATCHES} --patches-per-slide 8 --val-fraction 0.4")
    extract_two_teachers()
    embed_and_import()
    train_and_export()
    evaluate()
    leave_out_pictures()


def run_command(words: str) -> None:
    """Run `g2l` with these words, none of which has a blank in it; it must end with 0."""
    succeed(*words.split())


def extract_two_teachers() -> None:
    """`store.zarr`: a teacher with views and pixels, and a further one."""
    sizes = "--rows-per-shard 8 --device cpu --batch-size 8 --workers 1 --no-preflight"
    run_command(f"extract-teacher plan.h5 --out store.zarr --teacher local-dir:teacher --views 2 {sizes}")
    run_command(f"extract-teacher store.zarr --out store.zarr --teacher local-dir:second {sizes}")


def embed_and_import() -> None:
    """`trident`, the first teacher's features of the slides, and `imported.zarr`, the store of them."""
    run_command(f"embed local-dir:teacher slides.csv {SLIDES} --out trident {LAYOUT} {PATCHES} --stride-px 64 {CPU}")
    (features,) = Path("trident").rglob("features_*")
    of_slides = f"{SLIDES} --manifest slides.csv --teacher local-dir:teacher --patches-per-slide 4"
    run_command(f"import-features {features} --out imported.zarr {of_slides} {CPU}")


def train_and_export() -> None:
    """`run`, of both teachers; `exported`, its student; and `features`, what the student makes of the slides."""
    student = "--student local-dir:student --weights scratch"
    teachers = "--teacher local-dir:teacher --teacher local-dir:second"
    steps = "--epochs 2 --batch-size 4 --checkpoint-every 3"
    run_command(f"train-student store.zarr --out run {student} {teachers} {steps} {CPU} --lr 1e-3")
    run_command("export run --out exported")
    run_command(f"embed exported slides.csv {SLIDES} --out features {LAYOUT} --stride-px 64 {CPU}")


def evaluate() -> None:
    """`report`, of the student before and after, on the store and on patches."""
    models = "--models before=run@before --models after=run"
    sizes = "--resamples 100 --draws 5 --folds 3"
    run_command(f"evaluate --store store.zarr {models} --patches patches.csv --no-cost {CPU} {sizes} --out report")


def leave_out_pictures() -> None:
    """Take away what is only looked at."""
    shutil.rmtree("run/tensorboard", ignore_errors=True)
    for picture in [*Path("report").glob("*.png"), Path("report/report.html"), Path("run/curves.png")]:
        picture.unlink(missing_ok=True)


def pack(folder: Path, out: Path) -> None:
    """A tar.xz that is the same for the same files, without those of the archives that it is unpacked onto."""
    shared: dict[str, bytes] = {}
    for base in archives_of(out.name.removesuffix(".tar.xz"))[:-1]:
        with tarfile.open(base) as archive:
            shared |= {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]
    missing = [name for name in shared if not (folder / name).is_file()]
    assert not missing, f"take out of the shared archive, and into those that have them: {missing}"
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            info = archive.gettarinfo(path, path.relative_to(folder).as_posix())
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            if not info.isfile():
                archive.addfile(info)
            elif path.read_bytes() != shared.get(info.name):
                with open(path, "rb") as f:
                    archive.addfile(info, f)
    out.write_bytes(lzma.compress(plain.getvalue(), filters=FILTERS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
