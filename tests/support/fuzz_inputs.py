"""Valid inputs of every kind, made once, and the commands that read them.

A new kind is a line in `KINDS`, in `COHORT_KINDS` of `fuzz_cohorts`, or in `STUDY_KINDS` of `fuzz_studies`: which files
may be damaged, what of the world the command needs, and its words.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.stages import ExportConfig
from pipeline.config.tools import EmbedConfig
from pipeline.features.files import write_features
from pipeline.store.store import Store
from stages.embed import embed
from stages.export import export_student
from stages.train_student import train_student
from support.extraction import PATCH_PX, TEACHER, extract, plan_cohort, tiny_model, write_cohort, write_teacher
from support.features import slides_of, write_clam, write_slide2vec, write_stamp, write_trident
from support.files import write_table
from support.fuzz_cohorts import COHORT_KINDS, write_cohort_files
from support.fuzz_kinds import (
    CPU,
    MANIFEST,
    MODEL,
    ORIGIN,
    OUT,
    PLAN,
    STUDENT,
    STUDIED,
    TEACHING,
    WEIGHTS,
    WORLD,
    Kind,
    spoken,
)
from support.fuzz_studies import STUDY_KINDS, study_options, write_public_sets, write_studies
from support.stores import dropping_cnn, flags, make_patches, train_config

EVALUATE = (
    "evaluate",
    "--out",
    f"{OUT}/report",
    "--device",
    "cpu",
    "--no-cost",
    "--resamples",
    "100",
    "--draws",
    "2",
    "--folds",
    "2",
    "--mil-epochs",
    "1",
    "--no-margins",
)
NUM_CASES = 8


SLIDES = ("slides/s0.svs", "slides/s1.svs")
STORE_FILES = (
    "store.zarr/zarr.json",
    "store.zarr/*/zarr.json",
    "store.zarr/plan/*/zarr.json",
    "store.zarr/shards/*.json",
    "store.zarr/embedding/c/**/*",
    "store.zarr/status/c/**/*",
    "store.zarr/plan/*/c/**/*",
)
TRAINED_ON = (
    "store.zarr/zarr.json",
    "store.zarr/shards/*.json",
    "store.zarr/plan/zarr.json",
    "store.zarr/embedding/c/**/*",
    "store.zarr/status/c/**/*",
    "store.zarr/plan/split/c/*",
)
EXPORT_FILES = ("student/config.json", "student/model.safetensors", "student/student.json")
CHECKPOINTS = ("run/checkpoints/*.pt", "run/checkpoints/*.json")
EXTRACT = (
    "extract-teacher",
    f"{WORLD}/plan.h5",
    "--out",
    f"{OUT}/store.zarr",
    *TEACHING,
    *CPU,
    "--rows-per-shard",
    "8",
    "--slides-root",
    f"{WORLD}/slides",
)
EMBED = (
    "embed",
    MODEL,
    f"{WORLD}/slides/manifest.csv",
    "--out",
    f"{OUT}/features",
    "--layout",
    "trident",
    *CPU,
    "--patch-px",
    str(PATCH_PX),
    "--mpp",
    "0.5",
    "--min-tissue",
    "0",
    "--batch-size",
    "4",
)
TRAIN = ("train-student", f"{WORLD}/store.zarr", "--out", f"{OUT}/run", STUDENT)
CONTINUE = ("train-student", f"{WORLD}/store.zarr", "--out", f"{WORLD}/half", STUDENT)
GO_ON_EMBEDDING = tuple(word.replace(f"{OUT}/features", f"{WORLD}/embedded") for word in EMBED)
GO_ON_EXTRACTING = tuple(word.replace(f"{OUT}/", f"{WORLD}/") for word in EXTRACT)
SLIDE_LABELS = ("--models", MODEL, "--slides", f"{WORLD}/labels.csv", "--label", "tp53")


def importing(layout: str) -> tuple[str, ...]:
    """Words that import features of a layout."""
    return (
        "import-features",
        f"{WORLD}/{layout}",
        "--out",
        f"{OUT}/store.zarr",
        "--slides-root",
        f"{WORLD}/slides",
        "--manifest",
        f"{WORLD}/slides/manifest.csv",
        *TEACHING,
        *CPU,
        "--rows-per-shard",
        "8",
    )


def weighing(file: str) -> tuple[str, ...]:
    """Words that start a student from a file of weights."""
    return (*TRAIN, "--weights", f"{WORLD}/{file}")


KINDS = (
    Kind("slide: plan", SLIDES, ("slides",), PLAN),
    Kind("slide: extract-teacher", SLIDES, ("slides", "plan.h5", *WEIGHTS), EXTRACT),
    Kind("slide: embed", SLIDES, ("slides", *WEIGHTS), EMBED),
    Kind("slide: import-features", SLIDES, ("slides", "trident", *WEIGHTS), importing("trident")),
    Kind("slide: make-manifest", SLIDES, ("slides",), ("make-manifest", f"{WORLD}/slides", *MANIFEST), False),
    Kind("manifest: plan", ("slides/manifest.csv",), ("slides",), PLAN),
    Kind("manifest: embed", ("slides/manifest.csv",), ("slides", *WEIGHTS), EMBED),
    Kind("GDC file: make-manifest", ("gdc.txt",), ("gdc.txt",), ("make-manifest", f"{WORLD}/gdc.txt", *MANIFEST)),
    Kind("TRIDENT: import-features", ("trident/**/*.h5",), ("slides", "trident", *WEIGHTS), importing("trident")),
    Kind("CLAM: import-features", ("clam/*/*.h5",), ("slides", "clam", *WEIGHTS), importing("clam")),
    Kind(
        "CLAM tensors: import-features",
        ("tensors/*/*.h5", "tensors/*/*.pt"),
        ("slides", "tensors", *WEIGHTS),
        importing("tensors"),
    ),
    Kind("STAMP: import-features", ("stamp/*.h5",), ("slides", "stamp", *WEIGHTS), importing("stamp")),
    Kind(
        "slide2vec: import-features",
        ("slide2vec/*/*.pt", "slide2vec/*/*.npz", "slide2vec/tile_embeddings/*.json"),
        ("slides", "slide2vec", *WEIGHTS),
        importing("slide2vec"),
    ),
    # read only where the description beside the features does not give the side of a tile
    Kind(
        "slide2vec tiling: import-features",
        ("slide2vec/tiles/*.json",),
        ("slides", "slide2vec", *WEIGHTS),
        importing("slide2vec"),
        decides=False,
    ),
    Kind(
        "features: evaluate",
        ("features/*.h5", "features/*.pt"),
        ("features", "labels.csv", *WEIGHTS),
        (*EVALUATE, *SLIDE_LABELS, "--features", f"tiny={WORLD}/features"),
    ),
    Kind(
        "slide labels: evaluate",
        ("labels.csv",),
        ("features", "labels.csv", *WEIGHTS),
        (*EVALUATE, *SLIDE_LABELS, "--features", f"tiny={WORLD}/features"),
    ),
    Kind(
        "image: evaluate --patches",
        ("images/*.png",),
        ("images", "patches.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--patches", f"{WORLD}/patches.csv"),
    ),
    Kind(
        "JPEG image: evaluate --patches",
        ("images/*.jpg",),
        ("images", "jpegs.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--patches", f"{WORLD}/jpegs.csv"),
    ),
    Kind(
        "patch table: evaluate --patches",
        ("patches.csv",),
        ("images", "patches.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--patches", f"{WORLD}/patches.csv"),
    ),
    Kind(
        "robustness table: evaluate",
        ("robustness.csv",),
        ("images", "robustness.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--robustness", f"{WORLD}/robustness.csv"),
    ),
    Kind(
        "image: evaluate --robustness",
        ("images/*.png",),
        ("images", "robustness.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--robustness", f"{WORLD}/robustness.csv"),
    ),
    Kind(
        "paired table: evaluate",
        ("paired.csv",),
        ("images", "paired.csv", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--robustness", f"{WORLD}/paired.csv"),
    ),
    Kind(
        "weights: train-student",
        ("student.safetensors",),
        ("store.zarr", "cnn", "student.safetensors"),
        weighing("student.safetensors"),
    ),
    Kind(
        "torch checkpoint: train-student", ("student.pt",), ("store.zarr", "cnn", "student.pt"), weighing("student.pt")
    ),
    Kind("weights: extract-teacher", WEIGHTS, ("slides", "plan.h5", *WEIGHTS), EXTRACT),
    Kind("weights: embed", WEIGHTS, ("slides", *WEIGHTS), EMBED),
    Kind("plan: extract-teacher", ("plan.h5",), ("slides", "plan.h5", *WEIGHTS), EXTRACT),
    Kind("plan: inspect", ("plan.h5",), ("plan.h5",), ("inspect", f"{WORLD}/plan.h5")),
    Kind(
        "store: verify",
        STORE_FILES,
        ("store.zarr", *WEIGHTS),
        (
            "verify",
            f"{WORLD}/store.zarr",
            "--weights",
            f"{WORLD}/teacher.safetensors",
            "--sample",
            "4",
            "--device",
            "cpu",
        ),
    ),
    Kind("store: inspect", STORE_FILES, ("store.zarr",), ("inspect", f"{WORLD}/store.zarr"), False),
    Kind("store: train-student", TRAINED_ON, ("store.zarr", "cnn"), TRAIN),
    Kind(
        "store: evaluate",
        TRAINED_ON,
        ("store.zarr", *WEIGHTS),
        (*EVALUATE, "--models", MODEL, "--store", f"{WORLD}/store.zarr"),
    ),
    Kind(
        "run: train-student goes on", ("half/checkpoints/*", "half/run.json"), ("store.zarr", "cnn", "half"), CONTINUE
    ),
    Kind(
        "metrics: train-student goes on",
        ("half/metrics.jsonl", "half/config.toml"),
        ("store.zarr", "cnn", "half"),
        CONTINUE,
        False,
    ),
    Kind(
        "run: inspect",
        (*CHECKPOINTS, "run/run.json", "run/metrics.jsonl"),
        ("run",),
        ("inspect", f"{WORLD}/run"),
        False,
    ),
    Kind(
        "run: export",
        ("run/student/*.safetensors", "run/student/config.json", "run/run.json"),
        ("run", "cnn"),
        ("export", f"{WORLD}/run", "--out", f"{OUT}/student"),
    ),
    Kind("exported student: embed", EXPORT_FILES, ("slides", "student"), ("embed", f"{WORLD}/student", *EMBED[2:])),
    Kind(
        "projector: embed --as-teacher",
        ("student/projector/projector.safetensors",),
        ("slides", "student"),
        ("embed", f"{WORLD}/student", *EMBED[2:], "--as-teacher"),
    ),
    Kind("exported student: inspect", EXPORT_FILES, ("student",), ("inspect", f"{WORLD}/student"), False),
    Kind(
        "folder of features goes on: embed",
        ("embedded/**/*.h5", "embedded/embed.json", "embedded/failures.csv"),
        ("slides", "embedded", *WEIGHTS),
        GO_ON_EMBEDDING,
        False,
    ),
    Kind(
        "store goes on: extract-teacher",
        STORE_FILES,
        ("slides", "plan.h5", "store.zarr", *WEIGHTS),
        GO_ON_EXTRACTING,
        False,
    ),
    Kind(
        "options: plan --config",
        ("options.txt",),
        ("slides", "options.txt"),
        (*PLAN, "--config", f"{WORLD}/options.txt"),
        False,
    ),
    *COHORT_KINDS,
    *STUDY_KINDS,
)


class World:
    """A folder with a valid input of every kind."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.options = {STUDIED: study_options(folder)}
        self.write_slides()
        self.write_tables()
        self.write_students()
        write_cohort_files(folder)
        write_public_sets(folder)
        write_studies(folder, self.options[STUDIED])

    def words(self, kind: Kind, world: Path, out: Path) -> list[str]:
        """The words of a kind's command on a copy of the world."""
        return spoken(kind.words, {WORLD: world, OUT: out, ORIGIN: self.folder}, self.options)

    def write_slides(self) -> None:
        """Two slides, their plan, store, and features in every layout."""
        f = self.folder
        manifest = write_cohort(f / "slides", width=256, height=192)
        write_teacher(f / "teacher.safetensors")
        plan = plan_cohort(manifest, patches_per_slide=8)
        write_plan(plan, f / "plan.h5")
        made = extract(plan, f / "store.zarr", f / "teacher.safetensors", workers=2).store
        slides = slides_of(made)
        write_trident(f / "trident", slides)
        write_clam(f / "clam", slides)
        write_clam(f / "tensors", slides, tensors=True)
        write_stamp(f / "stamp", slides)
        write_slide2vec(f / "slide2vec", slides)
        (f / "options.txt").write_text("[plan]\nseed = 3\nval_fraction = 0.5\n")

    def write_tables(self) -> None:
        """Images and feature files of eight cases, and the tables that name them."""
        f, rng = self.folder, np.random.default_rng(0)
        (f / "images").mkdir()
        (f / "features").mkdir()
        patches, robust, paired, labels = [], [], [], []
        for i, patch in enumerate(make_patches(4 * NUM_CASES, PATCH_PX, seed=1)):
            patch[..., i % 2] //= 2
            case, label, center = f"case {i % NUM_CASES}", ("normal", "tumour")[i % 2], ("north", "south")[i // 2 % 2]
            Image.fromarray(patch).save(f / "images" / f"i{i}.png")
            Image.fromarray(patch).save(f / "images" / f"i{i}.jpg")
            patches.append(f"images/i{i}.png,{label},{case},{center}")
            robust.append(f"all,{case},{i},{label},{center},images/i{i}.png")
            paired.append(
                f"{'AB'[i // 16]}{'HG'[i // 8 % 2]},{i % 8},{'AB'[i // 16]},{'HG'[i // 8 % 2]},images/i{i}.png"
            )
        for case in range(2 * NUM_CASES):
            values = rng.normal(size=(6, 8)).astype(np.float32) + 2 * (case % 2)
            if case % 4 == 3:
                torch.save(torch.from_numpy(values), f / "features" / f"T-{case:02}.pt")
            else:
                write_features(f / "features" / f"T-{case:02}.h5", {"features": values}, {}, {})
            labels.append(f"T-{case:02},P-{case:02},{('wild-type', 'mutated')[case % 2]}")
        write_table(f / "patches.csv", "path,label,group,center", patches)
        write_table(f / "jpegs.csv", "path,label,group,center", [line.replace(".png", ".jpg") for line in patches])
        write_table(f / "robustness.csv", "subset,slide_id,patch_id,biological_class,medical_center,path", robust)
        write_table(f / "paired.csv", "slide_id,patch_id,scanner,staining,path", paired)
        write_table(f / "labels.csv", "slide_id,case_id,tp53", labels)
        names = [f"TCGA-3C-AAL{c}-01Z-00-DX1.{c * 8}.svs" for c in "IJK"]
        gdc = [f"{i}{'0' * 7}-aaaa\t{name}\t{str(i) * 32}\t123\treleased" for i, name in enumerate(names)]
        write_table(f / "gdc.txt", "id\tfilename\tmd5\tsize\tstate", gdc)

    def write_students(self) -> None:
        """A run, the same half way through, an exported student, weights to start from, and a folder of embeddings."""
        f = self.folder
        config = train_config(dropping_cnn(f / "cnn"), batch_size=4)
        self.options[STUDENT] = flags(config)
        weights = tiny_model("test_efficientnet", num_classes=0).state_dict()
        write_teacher(f / "student.safetensors", "test_efficientnet")
        torch.save(weights, f / "student.pt")
        train_student(Store(f / "store.zarr"), f / "run", config)
        export_student(f / "run", f / "student", ExportConfig().format)
        shutil.copytree(f / "run", f / "half")
        shutil.rmtree(f / "half" / "student")
        for path in sorted((f / "half" / "checkpoints").iterdir())[-2:]:
            path.unlink()
        embedding = EmbedConfig(layout="trident", device="cpu", patch_px=PATCH_PX, mpp=0.5, min_tissue=0, batch_size=4)
        model, manifest = f"tiny={TEACHER}@{f / 'teacher.safetensors'}", f / "slides" / "manifest.csv"
        embed(model, manifest, f / "embedded", embedding, options={})
