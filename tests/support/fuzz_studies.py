"""Inputs of `reproduce`, `ablate` and `curve`: public sets, the folders of studies and reports that go on, and GDC's
answer; and the commands that read them.
"""

import shutil
from pathlib import Path

import numpy as np

from pipeline.features.files import write_features
from support import public_sets
from support.commands import call_g2l
from support.extraction import PATCH_PX
from support.files import write_table
from support.fuzz_damage import NAMES
from support.fuzz_kinds import CPU, MODEL, ORIGIN, OUT, STUDIED, WEIGHTS, WORLD, Kind, spoken
from support.stores import make_store, plain_vit
from support.studies import base_values

SETS = ("bach", "bracs", "pcam", "tils", "chimera", "tcga", "pathorob", "tiger")
"""Folders of the world, one a miniature of a public set."""
BACH_FIELDS = (1, 20, 42, 50, 60, 70, 100)
"""Numbers of the fields of each class; each class has some on both sides of the split."""
PATIENTS = 12
QUICK = (*CPU, "--no-cost", "--resamples", "100", "--patch-px", str(PATCH_PX))
SAME_MODEL = MODEL.replace(WORLD, ORIGIN)
STUDY_STORE = ("study_store.zarr",)
ABLATE = (
    "ablate",
    f"{ORIGIN}/study_store.zarr",
    "--out",
    f"{WORLD}/study",
    STUDIED,
    "--vary",
    "loss=mse,cosine",
    "--seeds",
    "2",
)
GO_ON = tuple(word.replace("/study", "/half_study") if word == f"{WORLD}/study" else word for word in ABLATE)
CURVE = (
    "curve",
    f"{ORIGIN}/study_store.zarr",
    "--out",
    f"{WORLD}/curve",
    STUDIED,
    "--over",
    "slides",
    "--slides",
    "2,4",
    "--seeds",
    "2",
    "--resamples",
    "100",
)
EVALUATED = (
    "evaluate",
    "--out",
    f"{WORLD}/evaluated",
    "--models",
    SAME_MODEL,
    "--patches",
    f"{ORIGIN}/patches.csv",
    "--draws",
    "2",
    "--folds",
    "2",
    *QUICK,
)


def reproducing(name: str, root: str, *more: str) -> tuple[str, ...]:
    """Words that score a tiny model on a public set."""
    return ("reproduce", name, "--root", f"{WORLD}/{root}", "--out", f"{OUT}/out", "--models", MODEL, *QUICK, *more)


RENEW = (*reproducing("bracs", "bracs")[:2], "--root", f"{ORIGIN}/bracs", "--out", f"{WORLD}/reproduced")
RENEW = (*RENEW, "--models", SAME_MODEL, *QUICK)
FITTED = ("--protocol", "g2l")
"""In place of eva's probe, which takes thousands of steps."""
OF_SLIDES = ("--features", f"tiny={WORLD}/features")

STUDY_KINDS = (
    Kind("GDC answer: make-manifest", ("gdc_answer.txt",), ("gdc_answer.txt",),
         ("make-manifest", f"{WORLD}/gdc_answer.txt", "--out", f"{OUT}/manifest.csv")),
    Kind("BACH image: reproduce", ("bach/**/*.tif",), ("bach", *WEIGHTS),
         reproducing("bach", "bach", *FITTED), more=NAMES),
    Kind("BRACS image: reproduce", ("bracs/**/*.png",), ("bracs", *WEIGHTS), reproducing("bracs", "bracs"), more=NAMES),
    Kind("PCam pixels and labels: reproduce", ("pcam/*.h5",), ("pcam", *WEIGHTS), reproducing("pcam", "pcam", *FITTED)),
    Kind("PCam slides: reproduce", ("pcam/*.csv",), ("pcam", *WEIGHTS), reproducing("pcam", "pcam", *FITTED)),
    Kind("TCGA-TILs table: reproduce", ("tils/*.csv",), ("tils", *WEIGHTS), reproducing("tils", "tils")),
    Kind("CHIMERA records: reproduce", ("chimera/task1/clinical_data/*.json",), ("chimera", "scans", *WEIGHTS),
         reproducing("chimera", "chimera", "--features", f"tiny={WORLD}/scans"), more=NAMES),
    Kind("label table: reproduce", ("tcga/tcga_brca.csv",), ("tcga", "features", *WEIGHTS),
         reproducing("tp53", "tcga", *OF_SLIDES)),
    Kind("PathoROB table: reproduce", ("pathorob/metadata.csv",), ("pathorob", *WEIGHTS),
         reproducing("pathorob-camelyon", "pathorob")),
    Kind("TIGER regions and masks: reproduce", ("tiger/**/*.png",), ("tiger", *WEIGHTS),
         reproducing("tiger", "tiger"), more=NAMES),
    Kind("comparison: reproduce --beside", ("reproduced/comparison.csv",), ("reproduced", "bracs", *WEIGHTS),
         reproducing("bracs", "bracs", "--beside", f"{WORLD}/reproduced")),
    Kind("options: reproduce goes on", ("reproduced/reproduce.toml",), ("reproduced",), RENEW),
    Kind("outputs: reproduce goes on", ("reproduced/*", "reproduced/report/**/*"), ("reproduced",), RENEW, False),
    Kind("report: evaluate goes on", ("evaluated/evaluate.toml", "evaluated/report.json"), ("evaluated",), EVALUATED),
    Kind("outputs: evaluate goes on", ("evaluated/*", "evaluated/embeddings/*"), ("evaluated",), EVALUATED, False),
    Kind("study: ablate goes on", ("study/study.json", "study/scores/*/*.json"), ("study",), ABLATE),
    Kind("outputs: ablate goes on", ("study/*", "study/embeddings/*"), ("study",), ABLATE, False),
    Kind("students: ablate goes on", ("half_study/runs/loss-mse/1/student/**/*",), ("half_study",), GO_ON, False),
    Kind("runs: ablate goes on", ("half_study/runs/**/*", "half_study/embeddings/*"), ("half_study",), GO_ON, False),
    Kind("store: ablate goes on", ("study_store.zarr/**/*",), ("study_store.zarr", "study"),
         tuple(word.replace(ORIGIN, WORLD) for word in ABLATE), False),
    Kind("study: curve goes on", ("curve/study.json", "curve/scores/*/*.json"), ("curve",), CURVE),
    Kind("outputs: curve goes on", ("curve/*", "curve/embeddings/*"), ("curve",), CURVE, False),
)  # fmt: skip


def study_options(world: Path) -> list[str]:
    """The options of `train-student` of all studies: a tiny student, one epoch."""
    base = base_values(world, student=f"local-dir:{world / 'vit'}", epochs=1)
    return [str(word) for name, value in base.items() for word in ("--" + name.replace("_", "-"), value)]


def write_public_sets(folder: Path) -> None:
    """A miniature of each set, features of its slides, and GDC's answer."""
    public_sets.bach(folder / "bach", BACH_FIELDS)
    for name in ("bracs", "pcam", "pathorob", "tiger"):
        getattr(public_sets, name)(folder / name)
    public_sets.tcga_tils(folder / "tils")
    public_sets.chimera(folder / "chimera", PATIENTS)
    (folder / "scans").mkdir()
    for number in range(2 * PATIENTS):
        patient, scan = divmod(number, 2)
        values = np.random.default_rng(number).normal(size=(6, 8)).astype(np.float32) + patient % 2
        write_features(folder / "scans" / f"{1003 + patient}_{scan + 1}.h5", {"features": values}, {}, {})
    (folder / "tcga").mkdir()
    labels = [f"T-{i:02},x,P-{i:02},north,{('wild-type', 'mutated')[i % 2]}" for i in range(16)]
    write_table(folder / "tcga" / "tcga_brca.csv", "slide_id,path,case_id,center,tp53", labels)
    write_answer(folder / "gdc_answer.txt")


def write_answer(path: Path) -> None:
    """GDC's answer to `data_manifests/gdc_query.json`, with a slide whose name has no barcode."""
    names = [f"TCGA-3C-AAL{c}-01Z-00-DX1.{c * 8}.svs" for c in "IJK"] + ["CPTAC-21.svs"]
    cases = ["TCGA-3C-AALI", "TCGA-3C-AALJ", "TCGA-3C-AALK", "C3L-00001"]
    columns = "cases.0.project.project_id\tcases.0.samples.0.sample_type\tcases.0.submitter_id\texperimental_strategy"
    rows = [
        f"TCGA-PRAD\tPrimary Tumor\t{case}\tDiagnostic Slide\t{i}-aaaa\t{name}\t123\t{i}\t{str(i) * 32}\treleased"
        for i, (case, name) in enumerate(zip(cases, names, strict=True))
    ]
    write_table(path, f"{columns}\tfile_id\tfile_name\tfile_size\tid\tmd5sum\tstate", rows)


def write_studies(world: Path, studied: list[str]) -> None:
    """An ablation, the same half way through, a curve, a reproduction without its report, and a report."""
    make_store(world / "study_store.zarr", train=(12,) * 4, val=(6,) * 4)
    plain_vit(world / "vit")
    for words in (ABLATE, CURVE, RENEW, EVALUATED):
        code, said, errors = call_g2l(*spoken(words, {WORLD: world, ORIGIN: world}, {STUDIED: studied}))
        assert code == 0, said + errors
    shutil.copytree(world / "study", world / "half_study")
    for label, seed in (("loss-mse", 1), ("loss-cosine", 0)):
        (world / "half_study" / "scores" / label / f"{seed}.json").unlink()
    going_on = world / "half_study" / "runs" / "loss-cosine" / "0"
    shutil.rmtree(going_on / "student")
    for path in sorted((going_on / "checkpoints").iterdir())[-2:]:
        path.unlink()
    (world / "reproduced" / "report" / "report.json").unlink()  # it names its table by a path, which a copy changes
