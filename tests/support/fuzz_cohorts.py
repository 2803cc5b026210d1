"""Inputs of `plan` besides slides: annotations of every kind, corrected tissue, lists of cases; stores in parts, with
rounds of views and with two teachers; and what `doctor` reads.
"""

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from pipeline.cohort.plan_hdf5 import read_plan
from support.annotated import Corners, asap, layer, region, write_geojson
from support.extraction import FURTHER, PATCH_PX, TEACHER, extract, write_teacher
from support.files import write_table
from support.fuzz_damage import NAMES
from support.fuzz_kinds import CPU, OUT, PLAN, STUDENT, WEIGHTS, WORLD, Kind

WIDTH, HEIGHT, MPP = 256, 192, 0.5
"""Of the world's slides."""
DRAWN_BOXES = {"Tumour": (0, 0, 140, 192), "Stroma": (140, 0, 100, 192)}
"""Boxes (x, y, width, height) of level 0 that are drawn on each slide, by class."""
SLIDES = ("s0", "s1")
Write = Callable[[Path], object]


def corners(box: tuple[int, int, int, int]) -> Corners:
    """Of a box, around it."""
    x, y, width, height = box
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def write_asap(path: Path) -> None:
    """XML of ASAP."""
    drawn = "".join(asap("Polygon", name, corners(box)) for name, box in DRAWN_BOXES.items())
    group = '<AnnotationGroups><Group Name="Tumour" PartOfGroup="None" Color="#F00"><Attributes /></Group>'
    whole = f"<Annotations>{drawn}</Annotations>{group}</AnnotationGroups>"
    path.write_text(f'<?xml version="1.0"?><ASAP_Annotations>{whole}</ASAP_Annotations>')


def write_layers(path: Path, tag: str, kind: str, more: str = "") -> None:
    """XML of ImageScope or HALO, whose points have this tag."""
    pairs = enumerate(DRAWN_BOXES.items())
    layers = [
        layer(region(corners(box), tag, Type=kind, NegativeROA="0"), name, number=str(number))
        for number, (name, box) in pairs
    ]
    path.write_text(f"<Annotations{more}>{''.join(layers)}</Annotations>")


def mask() -> Any:
    """A mask of 4 um a pixel: 1 is tumour, 2 stroma; uint8 (24, 32)."""
    values = np.zeros((HEIGHT // 8, WIDTH // 8), np.uint8)
    values[:, :18], values[:, 18:30] = 1, 2
    return values


def write_geojson_of_both(path: Path) -> None:
    """The boxes as QuPath writes them."""
    write_geojson(path, **DRAWN_BOXES)


def write_zip(path: Path) -> None:
    """The same, as the one file of an archive."""
    write_geojson_of_both(path.with_suffix(".geojson"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_suffix(".geojson"), "a.geojson")
    path.with_suffix(".geojson").unlink()


def write_gzip(path: Path) -> None:
    """The same, gzipped."""
    write_geojson_of_both(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


OME = {"axes": "YX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 4.0}
PIXELS_PER_CM = (2500, 2500)
DRAWN: dict[str, tuple[str, Write]] = {
    "GeoJSON": (".geojson", write_geojson_of_both),
    "zipped GeoJSON": (".zip", write_zip),
    "gzipped GeoJSON": (".geojson.gz", write_gzip),
    "XML of ASAP": (".xml", write_asap),
    "XML of ImageScope": (".xml", lambda path: write_layers(path, "Vertex", kind="0", more=' MicronsPerPixel="0.5"')),
    "annotations of HALO": (".annotations", lambda path: write_layers(path, "V", kind="Polygon")),
    "PNG mask": (".png", lambda path: Image.fromarray(mask()).save(path)),
    "TIFF mask": (
        ".tif",
        lambda path: tifffile.imwrite(
            path, mask(), resolution=PIXELS_PER_CM, resolutionunit="CENTIMETER", metadata={"classes": {"1": "Tumour"}}
        ),
    ),
    "OME-TIFF mask": (".ome.tif", lambda path: tifffile.imwrite(path, mask(), ome=True, metadata=OME)),
}
"""Kinds of annotations: the ending of their files, and what writes one."""
NAMED = ("--include", "Tumour", "--exclude", "Stroma")
NUMBERED = ("--include", "1", "--exclude", "2")
HALF_NAMED = ("--include", "Tumour", "--exclude", "2")
CLASSES = {"PNG mask": NUMBERED, "TIFF mask": HALF_NAMED, "OME-TIFF mask": NUMBERED}


def folder_of(name: str) -> str:
    """Of a kind's annotations, below the world."""
    return f"drawn/{name.replace(' ', '_')}"


def planning(manifest: str, *more: str) -> tuple[str, ...]:
    """Words that plan the slides of this manifest."""
    return (PLAN[0], f"{WORLD}/{manifest}", *PLAN[2:], *more)


COHORT_KINDS = (
    *(
        Kind(
            f"{name}: plan",
            (f"{folder_of(name)}/*{suffix}",),
            ("slides", "drawn"),
            planning(f"{folder_of(name)}/manifest.csv", *CLASSES.get(name, NAMED)),
            more=NAMES,
        )
        for name, (suffix, _) in DRAWN.items()
    ),
    Kind(
        "manifest with annotations: plan",
        ("drawn/GeoJSON/manifest.csv",),
        ("slides", "drawn"),
        planning("drawn/GeoJSON/manifest.csv", *NAMED),
    ),
    Kind(
        "corrected tissue: plan --tissue-from",
        ("tissue/*.geojson",),
        ("slides", "tissue"),
        (*PLAN, "--tissue-from", f"{WORLD}/tissue"),
        more=NAMES,
    ),
    Kind(
        "list of cases: plan --exclude-cases",
        ("cases.txt",),
        ("slides", "cases.txt"),
        (*PLAN, "--exclude-cases", f"{WORLD}/cases.txt"),
        False,
    ),
    Kind(
        "table of cases: plan --exclude-cases",
        ("cases.csv",),
        ("slides", "cases.csv"),
        (*PLAN, "--exclude-cases", f"{WORLD}/cases.csv"),
        False,
    ),
    Kind(
        "ledgers: plan --rate-from",
        ("store.zarr/zarr.json", "store.zarr/shards/*.json"),
        ("slides", "store.zarr"),
        (*PLAN, "--rate-from", f"{WORLD}/store.zarr", "--budget", "1h"),
        False,
    ),
    Kind(
        "part: merge",
        ("part1.zarr/zarr.json", "part1.zarr/shards/*.json", "part1.zarr/*/c/**/*", "part1.zarr/plan/*/c/**/*"),
        ("part1.zarr", "part2.zarr"),
        ("merge", f"{WORLD}/part1.zarr", f"{WORLD}/part2.zarr", "--out", f"{OUT}/merged.zarr"),
        False,
    ),
    Kind(
        "manifest: doctor",
        ("slides/*", "doctor.toml"),
        ("slides", "doctor.toml"),
        ("doctor", f"{WORLD}/slides/manifest.csv", "--config", f"{WORLD}/doctor.toml"),
        False,
    ),
    Kind(
        "store: doctor",
        ("store.zarr/**/*.json", "store.zarr/*/c/**/*"),
        ("slides", "store.zarr"),
        ("doctor", f"{WORLD}/store.zarr"),
        False,
    ),
    Kind(
        "rounds of views: verify",
        ("rounds.zarr/rounds/**/*",),
        ("rounds.zarr", *WEIGHTS),
        ("verify", f"{WORLD}/rounds.zarr", "--weights", f"{WORLD}/teacher.safetensors", "--sample", "4", *CPU[:2]),
        False,
    ),
    Kind(
        "rounds of views: train-student",
        ("rounds.zarr/rounds/**/*",),
        ("rounds.zarr", "cnn"),
        ("train-student", f"{WORLD}/rounds.zarr", "--out", f"{OUT}/run", STUDENT, "--views-per-epoch", "fresh"),
        False,
    ),
    Kind(
        "further teacher: verify",
        ("two.zarr/teachers/**/*",),
        ("two.zarr", "further.safetensors"),
        (
            *("verify", f"{WORLD}/two.zarr", "--teacher", FURTHER, "--sample", "4", *CPU[:2]),
            *("--weights", f"{WORLD}/further.safetensors"),
        ),
        False,
    ),
    Kind(
        "further teacher: train-student",
        ("two.zarr/teachers/**/*",),
        ("two.zarr", "cnn"),
        (
            *("train-student", f"{WORLD}/two.zarr", "--out", f"{OUT}/run", STUDENT),
            *("--teacher", TEACHER, "--teacher", FURTHER),
        ),
        False,
    ),
    Kind("run: doctor", ("half/*", "half/checkpoints/*"), ("half",), ("doctor", f"{WORLD}/half"), False),
)


def write_cohort_files(world: Path) -> None:
    """Annotations of each kind with their manifest, tissue to take, lists of cases, and a store in two parts.

    The world has its slides, their plan and the teacher's weights.
    """
    for name, (suffix, write) in DRAWN.items():
        folder = world / folder_of(name)
        folder.mkdir(parents=True)
        for slide in SLIDES:
            write(folder / f"{slide}{suffix}")
        lines = [f"{slide},../../slides/{slide}.svs,c{slide},{slide}{suffix}" for slide in SLIDES]
        write_table(folder / "manifest.csv", "slide_id,path,case_id,annotations", lines)
    (world / "tissue").mkdir()
    for slide in SLIDES:
        write_geojson(world / "tissue" / f"{slide}.geojson", Tissue=(0, 0, WIDTH, HEIGHT))
    (world / "doctor.toml").write_text(f"[plan]\npatch_px = {PATCH_PX}\nmin_tissue = 0.0\n")
    (world / "cases.txt").write_text("# known\nTCGA-3C-AALI\nc9\n")
    write_table(world / "cases.csv", "case_id,set", ["TCGA-3C-AALI,a", "c9,b"])
    plan = read_plan(world / "plan.h5")
    fresh = {"views": 3, "views_per_epoch": "fresh", "views_strength": "flips"}
    extract(plan, world / "rounds.zarr", world / "teacher.safetensors", **fresh)
    shutil.copytree(world / "store.zarr", world / "two.zarr")
    extract(plan, world / "two.zarr", write_teacher(world / "further.safetensors", FURTHER, seed=3), teacher=FURTHER)
    for part in (1, 2):
        extract(plan, world / f"part{part}.zarr", world / "teacher.safetensors", part=f"{part}/2")
