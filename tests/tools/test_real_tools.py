"""Each adapter in the tool that it is for, in an environment made for the purpose: the student's embeddings to 1e-5.

Such an environment takes minutes and up to gigabytes, and tools pin what contradicts this project. So this runs only
with G2L_TOOLS=1 (`make test-tools`); docs/tools.md has what came of it. The environment sees this project's packages
behind its own, so that torch need not be fetched again.
"""

import csv
import functools
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.commands import call_g2l
from support.files import write_table
from support.slides import make_slide, write_slide
from support.stores import make_patches, student_folder
from support.students import ARGUMENTS, EXPORTED, SPECS, TINY, disturb, random_projector, write_exported

from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import table
from pipeline.encoders.build import build_encoder
from pipeline.encoders.table import SWIGLU_GIANT
from pipeline.slides.annotations.read import read_annotations
from pipeline.student.adapters import oldest_timm, write_adapters
from pipeline.student.card_files import adapters_section
from pipeline.student.onnx_file import write_onnx
from pipeline.student.portable_names import ONNX_FILE

HERE = Path(__file__).parent
SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 48}
TOOLS = {
    "thunder": (["thunder-bench==0.2.2"], "in_thunder.py"),
    "slide2vec": (["slide2vec==7.1.4"], "in_slide2vec.py"),
    "eva": (["kaiko-eva[vision]==0.4.5"], "in_eva.py"),
    "trident": (["timm==0.9.16", "einops_exts", "geopandas", "segmentation-models-pytorch"], "in_trident.py"),
    "onnxruntime 1.17": (["onnxruntime==1.17.3", "numpy<2"], "in_onnxruntime.py"),
    "timm 1.0.31": (["timm==1.0.31"], "in_old_timm.py"),
    "timm 1.0.29": (["timm==1.0.29"], "in_old_timm.py"),
    "timm 1.0.20": (["timm==1.0.20"], "in_old_timm.py"),
    "timm 1.0.19": (["timm==1.0.19"], "in_old_timm.py"),
    "timm 1.0.16": (["timm==1.0.16"], "in_old_timm.py"),
    "timm 1.0.12": (["timm==1.0.12"], "in_old_timm.py"),
    "timm 0.9.16": (["timm==0.9.16"], "in_old_timm.py"),
}
PACKAGES = {tool: packages for tool, (packages, _) in TOOLS.items()} | {
    "lazyslide": ["lazyslide==0.13.0", "scanpy", "igraph"],
    "croma": ["croma==1.0.1"],
    "plismbench": ["timm==1.0.12", "loguru"],
    "clam": ["pandas==2.3.3"],  # its code is of pandas before 3
    "pathorob": ["timm==1.0.19", "datasets==5.2.0", "transformers==5.24.0", "scikit-learn"],
    "stamp": [
        "lightning==2.6.6",
        "torchmetrics==1.9.0",
        "beartype==0.23.1",
        "jaxtyping==0.3.11",
        "einops==0.8.2",
        "opencv-python-headless",
        "pandas",
        "pydantic",
    ],
    "pathobench": ["seaborn==0.13.2", "ipython", "pandas", "scikit-learn"],
    # pip alone goes back to a scikit-survival that it would have to build: these are the newest for NumPy 1.26
    "soma": [
        "soma-pathology==2.2.0",
        "scikit-survival==0.26.0",
        "scikit-learn==1.7.2",
        "scikit-image==0.26.0",
        "numpy==1.26.4",
        "opencv-python==4.11.0.86",
        "imagecodecs==2026.1.14",
    ],
}
"""What is installed into the environment of a tool."""
LOOSE = {"trident": "trident-test==0.1.1"}
"""Packages whose modules lie in no folder of their own: put into one of the tool's name, without what they need."""
SOURCES = "G2L_TOOLS_SOURCES"
"""Variable that names a folder of clones, for tools that no index has: docs/tools.md says of which commits."""
MORE: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit": ("vit_small_patch16_224", 48, SMALL),
    "vit with layer scale": ("vit_large_patch16_224", 48, SMALL | {"init_values": 1e-5, "dynamic_img_size": True}),
    "swiglu without registers": (SWIGLU_GIANT, 42, TINY | {"mlp_ratio": 4.0, "reg_tokens": 0, "no_embed_class": False}),
    "swiglu with eight registers": (SWIGLU_GIANT, 42, TINY | {"mlp_ratio": 4.0, "reg_tokens": 8}),
    "dinov3": ("vit_small_patch16_dinov3", 48, {"depth": 2, "embed_dim": 32, "num_heads": 2}),
    "swin": ("swin_tiny_patch4_window7_224", 224, {"embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 2, 4, 8]}),
}
"""Students for older timm, beside those of `EXPORTED`: architecture, patch side and arguments."""
MOST = 1e-5
"""Largest difference, absolute; values are up to 3."""

HELD = {"trident": 8, "timm 1.0.19": 10, "timm 1.0.16": 10, "timm 1.0.12": 10, "timm 0.9.16": 8}
"""How many of the eleven students a tool's timm has, where it has not all: docs/tools.md says which."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.environ.get("G2L_TOOLS") != "1", reason="installs other tools; make test-tools runs it"),
]


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Exported students of several kinds with their adapters, some patches, and the embeddings of these."""
    root = tmp_path_factory.mktemp("students")
    kinds = [(*kind, ARGUMENTS.get(label)) for label, kind in EXPORTED.items()] + list(MORE.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "ENCODERS", MappingProxyType({**table.ENCODERS, **SPECS}))
        return [make_student(root, f"student-{i}", *kind) for i, kind in enumerate(kinds)]


def make_student(root: Path, name: str, architecture: str, patch_px: int, arguments: dict[str, Any] | None) -> Path:
    """A student of random weights, exported with adapters and `model.onnx`; `expected.npz` has patches and their
    embeddings.
    """
    source = architecture
    if arguments is not None:
        source = student_folder(root / f"source-of-{name}", architecture, patch_px, **arguments)
    built = build_encoder(source, SCRATCH, patch_px)
    disturb(built.module.model)
    folder = root / name
    write_exported(folder, built.module.model, built.spec, random_projector(built.spec.width), "card")
    student = build_encoder(f"local-dir:{folder}", PRETRAINED, patch_px)
    write_adapters(folder, student.spec)
    write_onnx(student.module, folder / ONNX_FILE, {})
    patches = make_patches(4, patch_px)
    with torch.inference_mode():
        embeddings = student.module(torch.from_numpy(patches)).numpy()
    np.savez(folder / "expected.npz", patches=patches, embeddings=embeddings)
    return folder


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the Python of a tool's environment, which is made once."""
    root = tmp_path_factory.mktemp("environments")

    def made(tool: str) -> Path:
        python = make_environment(root / tool.replace(" ", "-"), PACKAGES[tool])
        if tool in LOOSE:
            folder = python.parent.parent / "loose"
            install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / tool, LOOSE[tool]]
            subprocess.run([python, *install], check=True)
            (site,) = python.parent.parent.glob("lib/python*/site-packages")
            (site / "loose.pth").write_text(f"{folder}\n")
        return python

    return functools.cache(made)


def clone_of(name: str) -> Path:
    """The clone of a tool's repository; skips where there is none."""
    folder = Path(os.environ.get(SOURCES, ""), name)
    if SOURCES not in os.environ or not folder.is_dir():
        pytest.skip(f"no index has it: name a folder with a clone {name} by {SOURCES}")
    return folder


def largest(differences: Iterable[float]) -> float:
    """The largest of them; no number if one is none, which Python's own `max` may pass over."""
    return float(np.max(list(differences)))


def run_beside(python: Path, script: str, *arguments: object) -> dict[str, Any]:
    """What a script of this folder says in its last line, run by the Python of a tool's environment."""
    done = subprocess.run([python, HERE / script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("tool", TOOLS)
def test_the_student_has_its_embeddings_in_the_tool(
    students: list[Path], environments: Callable[[str], Path], tool: str
) -> None:
    script = TOOLS[tool][1]
    lines = []
    for folder in students:
        architecture = json.loads((folder / "config.json").read_text())["architecture"]
        needed = [oldest_timm(architecture), oldest_timm(architecture, as_folder=True)]
        lines.append(run_beside(environments(tool), script, folder, *needed))
    lines = [line for line in lines if line["differences"]]
    worst = largest(value for line in lines for value in line["differences"])
    first, num = lines[0], len(lines)
    assert num == HELD.get(tool, len(students))
    print(f"{tool}: {first['tool']}, timm {first.get('timm')}: largest difference {worst:.2g} over {num} students")
    assert worst <= MOST


def test_evas_command_trains_a_head_on_the_student(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """`eva predict_fit` with the exported configuration: nine colours, of which a ninth would be right by chance."""
    said = run_beside(environments("eva"), "in_eva_task.py", students[0], tmp_path)
    print(f"eva's command: {said | {'differences': largest(said['differences'])}}")
    assert said["num"] == 162
    assert largest(said["differences"]) <= MOST
    assert said["accuracy"] > 0.5


def test_slide2vec_runs_on_the_tiles_that_embed_writes(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """At the slide's own resolution, at which patches are whole pixels; slide2vec reads no others."""
    (tmp_path / "slides").mkdir()
    for name, mpp, downsamples in (("a", 0.499, (1,)), ("b", 0.2495, (1, 2))):
        side = 900 * downsamples[-1]  # OpenSlide scales places by the levels' sizes: these are exact halves
        make_slide(tmp_path / "slides" / f"{name}.svs", width=side, height=side, mpp=mpp, downsamples=downsamples)
    command = ["embed", f"s={students[0]}", tmp_path / "slides", "--out", tmp_path / "out", "--layout", "pt"]
    assert call_g2l(*command, "--mpp", 0.499, "--device", "cpu")[0] == 0
    said = run_beside(environments("slide2vec"), "in_slide2vec_slide.py", students[0], tmp_path / "out", 0.499)
    print(f"slide2vec's pipeline: {said}")
    assert len(said["differences"]) == len(said["loaded"]) == 2
    assert largest(said["differences"]) <= MOST
    assert largest(said["loaded"]) == 0  # by its own loader of tiles' embeddings


def test_trident_extracts_on_the_coordinates_that_embed_writes(
    environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its Processor: the features of `embed` where patches are whole pixels, and near them where they are not. Its
    slide encoder loads the features of `embed`, and gives their mean.
    """
    student = make_student(tmp_path, "cnn", "resnet10t", 112, None)  # which sees it best, and which its timm has
    (tmp_path / "slides").mkdir()
    make_slide(tmp_path / "slides" / "a.svs", width=900, height=700, mpp=0.499)
    for mpp, least in ((0.499, 1 - 1e-9), (0.5, 0.9999)):
        out = tmp_path / f"out-{mpp}"
        command = ["embed", f"s={student}", tmp_path / "slides", "--out", out, "--layout", "trident", "--mpp", mpp]
        code, _, errors = call_g2l(*command, "--device", "cpu")
        assert code == 0, errors
        said = run_beside(environments("trident"), "in_trident_slide.py", student, out, tmp_path / "slides")
        print(f"TRIDENT's Processor at {mpp} um/px: {said}")
        assert len(said["differences"]) == 1
        assert said["cosines"][0]["least"] >= least
        assert (largest(said["differences"]) <= MOST) == (mpp == 0.499)
        assert len(said["means"]) == 1
        assert largest(said["means"]) <= MOST


def test_plan_takes_the_contours_that_trident_found(environments: Callable[[str], Path], tmp_path: Path) -> None:
    """As the slide's tissue and as a class, of the area that GeoPandas gives; where TRIDENT finds nothing, nothing is
    planned.
    """
    (tmp_path / "slides").mkdir()
    rows, columns = np.mgrid[:2400, :3200]
    squared = (rows - 1200) ** 2 + (columns - 1000) ** 2
    pieces = {
        "round": squared < 900**2,
        "two": (abs(rows - 600) + abs(columns - 700) < 500) | ((rows > 1500) & (columns > 2000)),
        "empty": squared < 0,
    }
    noise = np.random.default_rng(0).normal(0, 5, (2400, 3200, 3))
    for name, tissue in pieces.items():
        pixels = np.where(tissue[..., None], (190, 110, 160), 240) + noise
        write_slide(tmp_path / "slides" / f"{name}.svs", pixels.clip(0, 255).astype(np.uint8), mpp=0.5)
    said = run_beside(environments("trident"), "in_trident_contours.py", tmp_path / "job", tmp_path / "slides")
    print(f"TRIDENT's contours: {said}")
    contours, found = tmp_path / "job" / "contours_geojson", said["found"]
    assert [found[name]["regions"] for name in pieces] == [1, 2, 0]
    for name in ("round", "two"):
        read = read_annotations(contours / f"{name}.geojson", size_l0_px=(3200, 2400), mpp=0.5, slide_names=[name])
        assert read.areas_um2 == {"Tissue": pytest.approx(found[name]["area"] * 0.25, rel=1e-9)}
        assert found[name]["area"] == pytest.approx(pieces[name].sum(), rel=0.02)

    places = [f"{name},slides/{name}.svs,job/contours_geojson/{name}.geojson" for name in pieces]
    manifest = write_table(tmp_path / "m.csv", "slide_id,path,annotations", places)
    plans = []
    for number, option in enumerate((["--tissue-from", contours], ["--include", "Tissue"])):
        out = tmp_path / f"{number}.h5"
        code, _, errors = call_g2l("plan", manifest, "--val-fraction", "0", *option, "--out", out)
        assert code == 3, errors  # a slide fails
        plans.append(read_plan(out))
        assert [slide.slide_id for slide in plans[-1].slides] == ["round", "two"]
    for slide, same in zip(*(plan.slides for plan in plans), strict=True):
        assert np.array_equal(slide.coords_l0_px, same.coords_l0_px)
        middle = np.array(slide.coords_l0_px) + 112  # of 224 px at the slide's own 0.5 um/px
        assert pieces[slide.slide_id][middle[:, 1], middle[:, 0]].mean() > 0.95


def test_plismbench_extracts_and_compares(students: list[Path], environments: Callable[[str], Path]) -> None:
    """Its Extractor, its loops over a batch and over slides, and its cosine of them and the student's own."""
    lines = []
    for folder in students:
        oldest = oldest_timm(json.loads((folder / "config.json").read_text())["architecture"])
        source = clone_of("plism-benchmark")
        lines.append(run_beside(environments("plismbench"), "in_plismbench.py", source, folder, oldest))
    lines = [line for line in lines if line["differences"]]
    worst = largest(value for line in lines for value in line["differences"])
    print(f"plismbench: timm {lines[0]['timm']}: largest difference {worst:.2g} over {len(lines)} students")
    assert len(lines) == len(students) - 1  # its timm has no DINOv3
    assert worst <= MOST
    assert all(line["score"] == pytest.approx(1, abs=1e-6) for line in lines)


def test_clam_reads_the_features_of_embed(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its MIL data set and loader, from `pt_files` and from `h5_files`."""
    source = clone_of("CLAM")
    (tmp_path / "slides").mkdir()
    for seed, name in enumerate("ab"):
        make_slide(tmp_path / "slides" / f"{name}.svs", width=900, height=700, mpp=0.499, seed=seed)
    command = ["embed", f"s={students[0]}", tmp_path / "slides", "--out", tmp_path / "out", "--layout", "clam"]
    assert call_g2l(*command, "--mpp", 0.499, "--device", "cpu")[0] == 0
    said = run_beside(environments("clam"), "in_clam.py", source, tmp_path / "out")
    print(f"CLAM: {said}")
    assert len(said["differences"]) == 4
    assert largest(said["differences"]) == 0


def test_thunder_scores_the_student(students: list[Path], environments: Callable[[str], Path], tmp_path: Path) -> None:
    """Images of two colours are told apart by kNN in THUNDER's own command."""
    said = run_beside(environments("thunder"), "in_thunder_task.py", students[0], tmp_path)
    print(f"THUNDER's kNN: {said}")
    assert said["f1"] == 1.0


def test_thunder_segments_by_the_students_tokens(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its head is trained on masks of two colours. One colour everywhere would be right in about half the pixels."""
    said = run_beside(environments("thunder"), "in_thunder_masks.py", students[0], tmp_path)
    scores = {name: said["scores"][name]["metric_score"] for name in ("f1", "accuracy", "jaccard")}
    print(f"THUNDER's segmentation: {scores}")
    assert scores["accuracy"] > 0.9
    assert scores["jaccard"] > 0.7


def test_lazyslide_extracts_the_students_features(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """On the tiles that `g2l embed` writes for TRIDENT; its domains are the halves of a slide of two colours."""
    (tmp_path / "slides").mkdir()
    pixels = np.empty((640, 1200, 3))
    pixels[:, :600], pixels[:, 600:] = (222, 150, 190), (98, 66, 140)
    pixels += np.random.default_rng(0).normal(0, 20, pixels.shape)
    slide = write_slide(tmp_path / "slides" / "a.svs", pixels.clip(0, 255).astype(np.uint8), mpp=0.499)
    lines = []
    for number, folder in enumerate(students):
        out = tmp_path / f"out-{number}"
        command = ["embed", f"s={folder}", slide.parent, "--out", out, "--layout", "trident", "--mpp", 0.499]
        code, _, errors = call_g2l(*command, "--device", "cpu")
        assert code == 0, errors
        (features,) = out.glob("*/features_s/a.h5")
        lines.append(run_beside(environments("lazyslide"), "in_lazyslide.py", folder, slide, features, 0.499))
    worst = largest(value for line in lines for value in line["differences"])
    print(f"LazySlide: {lines[0]}, largest difference {worst:.2g} over {len(lines)} students")
    assert worst <= MOST
    assert lines[0]["score"] == 1.0


def test_lazyslide_off_whole_pixels(students: list[Path], environments: Callable[[str], Path], tmp_path: Path) -> None:
    """It leaves out what is over whole pixels: near `embed`, and not the same. The card's own lines lay and embed
    tiles.
    """
    student = students[2]  # a CNN, which sees it best
    side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
    (tmp_path / "slides").mkdir()
    slide = make_slide(tmp_path / "slides" / "a.svs", width=1500, height=1200, mpp=0.499)
    (tmp_path / "card.md").write_text(adapters_section(side, 0.5))
    said = run_beside(environments("lazyslide"), "in_lazyslide_card.py", student, tmp_path / "card.md", slide)
    print(f"LazySlide by the card: {said}")
    assert said["num"] > 50
    assert said["difference"] <= MOST
    command = ["embed", f"s={student}", slide.parent, "--out", tmp_path / "out", "--layout", "trident", "--mpp", 0.51]
    code, _, errors = call_g2l(*command, "--device", "cpu")
    assert code == 0, errors
    (features,) = (tmp_path / "out").glob("*/features_s/a.h5")
    said = run_beside(environments("lazyslide"), "in_lazyslide.py", student, slide, features, 0.51)
    print(f"LazySlide off whole pixels: {said}")
    assert 0.8 < said["cosines"][0] < 1 - 1e-6


def write_centres(folder: Path, student: Path) -> tuple[Path, NDArray[np.uint8]]:
    """PathoROB's table of 96 images of two classes and two centres on 16 slides; and the images (96, P, P, 3)."""
    side = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"][1]
    rows = [["subset", "slide_id", "patch_id", "biological_class", "medical_center", "path"]]
    images = []
    for i, patch in enumerate(make_patches(96, side, seed=1)):
        label, center = i % 2, i // 2 % 2
        tint = np.array([12, -12, 0]) * (2 * label - 1) + np.array([0, 0, 25]) * center
        images.append((patch + tint).clip(0, 255).astype(np.uint8))
        Image.fromarray(images[-1]).save(folder / f"{i}.png")
        rows.append(["all", f"case {i % 16}", str(i), ("normal", "tumour")[label], "NS"[center], f"{i}.png"])
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "table.csv", np.stack(images)


def index_of_report(student: Path, table: Path) -> tuple[int, dict[str, float]]:
    """Of `g2l evaluate`: the number of neighbours that it chose, and the robustness index of each that it shows."""
    out = table.parent / "out"
    command = ["evaluate", "--models", f"s={student}", "--robustness", table, "--no-cost"]
    code, _, errors = call_g2l(*command, "--resamples", 100, "--device", "cpu", "--out", out)
    assert code == 0, errors
    section = json.loads((out / "report.json").read_text())["sections"]["robustness"]
    tables = {table["title"]: table["rows"][0] for table in section["tables"]}
    at_same = tables["Robustness index at the same k"]
    index = {name.removeprefix("k = "): value for name, value in at_same.items() if name.startswith("k = ") and value}
    chosen = tables["Robustness index"]["k"]
    index[str(chosen)] = tables["Robustness index"]["index"]["value"]
    assert len(index) >= 4
    assert len(set(index.values())) > 2
    return chosen, index


def test_croma_counts_as_evaluate_does(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """The robustness index of each `k` that the report has, of embeddings that timm alone made with the export."""
    table, _ = write_centres(tmp_path, students[0])
    _, index = index_of_report(students[0], table)
    said = run_beside(environments("croma"), "in_croma.py", students[0], table, *index)
    print(f"croma: {said}")
    assert said["index"] == pytest.approx(index, abs=1e-12)


@pytest.mark.parametrize("kind", range(5))
def test_pathorob_extracts_and_counts_as_evaluate_does(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path, kind: int
) -> None:
    """By the card's lines and its own commands; its index is the report's for every number of neighbours, and so is
    the number that it takes for the best.
    """
    source, student = clone_of("PathoROB"), students[kind]
    table, images = write_centres(tmp_path, student)
    chosen, index = index_of_report(student, table)
    (tmp_path / "card.md").write_text(adapters_section(images.shape[1], 0.5))
    (tmp_path / "work").mkdir()
    arguments = (source, student, tmp_path / "card.md", table, tmp_path / "work")
    said = run_beside(environments("pathorob"), "in_pathorob.py", *arguments)
    module = build_encoder(f"local-dir:{student}", PRETRAINED, images.shape[1]).module
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    difference = float(np.abs(np.array(said["embeddings"]) - expected).max())
    theirs = {k: said["index"][k] for k in index}
    print(f"PathoROB: timm {said['timm']}, difference {difference:.2g}, k {said['k']}, index {theirs}")
    print(f"PathoROB's clustering score: {said['clustering']:.3f}")
    assert difference <= MOST
    assert said["k"] == chosen
    assert theirs == pytest.approx(index, abs=1e-12)
    assert -1 < said["clustering"] < 1


def embed_two_kinds(student: Path, folder: Path, layout: str) -> Path:
    """Twenty slides of two colours, `p0` to `p9` and `v0` to `v9`, embedded; gives the folder of `embed`."""
    (folder / "slides").mkdir()
    for kind, colour in (("p", (222, 150, 190)), ("v", (98, 66, 140))):
        for number in range(10):
            pixels = np.random.default_rng(number).normal(colour, 20, (320, 420, 3)).clip(0, 255).astype(np.uint8)
            write_slide(folder / "slides" / f"{kind}{number}.svs", pixels, mpp=0.499, downsamples=(1,))
    command = ["embed", f"s={student}", folder / "slides", "--out", folder / "out", "--layout", layout]
    code, _, errors = call_g2l(*command, "--mpp", 0.499, "--device", "cpu")
    assert code == 0, errors
    return folder / "out"


def test_clam_learns_from_the_features_of_embed(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its model, by its training loop, tells slides of two colours."""
    source = clone_of("CLAM")
    out = embed_two_kinds(students[0], tmp_path, "clam")
    said = run_beside(environments("clam"), "in_clam_training.py", source, out)
    print(f"CLAM's training: {said}")
    assert said["slides"] == [10, 10]
    assert (said["auc"], said["error"]) == (1.0, 0.0)


def test_stamp_reads_trains_and_extracts(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its loader reads what `embed` wrote, its model learns two colours from it, its own extraction gives the same."""
    source = clone_of("STAMP")
    out = embed_two_kinds(students[0], tmp_path, "stamp")
    (tmp_path / "work").mkdir()
    arguments = (source, students[0], out, tmp_path / "slides", tmp_path / "work")
    said = run_beside(environments("stamp"), "in_stamp.py", *arguments)
    print(f"STAMP: {said}")
    assert said["kind"] == "tile"
    assert said["um/px"] == pytest.approx(0.499)
    assert said["read"] == [0, 0]
    assert said["auroc"] == 1.0
    assert said["num"] > 50
    assert said["extracted"] <= 2**-10  # float16: the last digit of values up to 2


def test_patho_bench_probes_the_features_of_embed(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its data set reads TRIDENT's layout; its linear probe tells slides of two colours."""
    source = clone_of("Patho-Bench")
    (features,) = embed_two_kinds(students[0], tmp_path, "trident").glob("*/features_s")
    (tmp_path / "work").mkdir()
    said = run_beside(environments("pathobench"), "in_pathobench.py", source, features, tmp_path / "work")
    print(f"Patho-Bench: {said}")
    assert len(said["differences"]) == 20
    assert largest(said["differences"]) == 0
    assert said["auc"] == said["accuracy"] == 1.0


def test_evas_difference_is_its_way_to_scale_pixels(
    students: list[Path], environments: Callable[[str], Path], tmp_path: Path
) -> None:
    """ToDtype multiplies by 1/255, embed divides by 255: all of the difference, and no more than float32 has anyway."""
    deep = make_student(tmp_path, "deep", "vit_small_patch16_224", 224, {"depth": 12})
    for folder in (*students[:5], deep):
        said = run_beside(environments("eva"), "in_eva_rounding.py", folder)
        print(f"eva, values up to 9.8, {folder.name}: {said}")
        assert 0 < said["inputs"] <= 1e-6
        if "vit" in json.loads((folder / "config.json").read_text())["architecture"]:
            assert said["eva by division"] == 0 < said["eva"]
        else:  # convolutions differ in their last digits with the order of sums: of batches, and of memory
            assert said["eva by division"] <= 2 * said["batch"]
        assert said["eva"] <= 9.8 * MOST  # relative to the largest
        assert said["eva"] <= 4 * said["own by float64"]


def test_soma_scores_the_student(students: list[Path], environments: Callable[[str], Path], tmp_path: Path) -> None:
    """By slide2vec's registry; soma's own probe tells images of two colours."""
    said = run_beside(environments("soma"), "in_soma.py", students[0], tmp_path)
    print(f"soma: {said}")
    assert said["difference"] <= MOST
    assert said["accuracy"] == 1.0


def make_environment(folder: Path, packages: list[str]) -> Path:
    """An environment with these packages before this project's own; returns its Python. Skips what cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(place, "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python
