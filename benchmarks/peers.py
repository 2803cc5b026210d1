"""G2L beside LazySlide and slide2vec: from a slide to embeddings on disk; same slide, encoder, patches and cores.

    python -m venv lazy; lazy/bin/python -m pip install lazyslide fastslide
    python -m venv s2v; s2v/bin/python -m pip install slide2vec "hs2p[cucim,openslide,vips]"
    python benchmarks/peers.py --lazyslide lazy/bin/python --slide2vec s2v/bin/python

A peer that is not given is left out. Each run is a fresh process in the tool's own environment, one tool at a time.
Imports, model, tissue and tiles come before the clock starts, and so do 64 patches to warm up. What is timed:
    extract-teacher  the rest of the command, into a new store, without pixels and with them (JPEG XL, lossless): its
                     preflight, checksums and fsync are in it; float16 embeddings, as by default
    embed            the rest of the command, into a new folder in TRIDENT's layout; float32
    LazySlide        `feature_extraction` and `numpy.save`, with OpenSlide's reader and with fastslide's
    slide2vec        `Model.embed_tiles`, which writes its own files, with its fastest reader

Fair to the peers:
    - All get the same corners, in G2L's reading order, and make patches of 224 px at 0.5 um/px from level 0 at 0.25.
    - All load the same random weights of a timm encoder, which cost what trained ones do. It is tiny, so that it is
      little of what is measured; --encoder lcnet_050, the smallest that people train, is a sixth to a third of what the
      fastest peer takes. Each tool is told that it takes patches as they are: none resizes them again.
    - Of each peer and reader several settings are tried first on a part of the patches, and the fastest is used; G2L
      runs with its defaults. LazySlide's tiles may be normalised a batch at a time, which is not how it treats its own
      models. slide2vec reads blocks of 8 x 8 tiles and gets batches of whole blocks, else it would read blocks twice.
    - LazySlide's embeddings are saved by NumPy, not in its own store, which holds more. G2L and slide2vec write theirs.
    - The peers reduce tiles by OpenCV's area average. G2L uses Lanczos, which is more work: torch's by default, and
      Pillow's with `plan --resampling lanczos-pillow`; `embed` by torch's.
    - The slide is in the page cache for all. Its tiles are 256-px JPEG (4:2:0), the usual kind, which G2L reads without
      OpenSlide; other kinds are not measured here. --slide takes a real one; its tiles are decoded in 1.1 to 1.2 times
      the time of the synthesised slide's.

Two columns show that they do the same work: the median cosine between G2L's embedding of a patch and theirs, each less
its mean over patches, and the share of patches whose embedding is closest to G2L's of the same patch among those of all
patches. Between area average and Lanczos they are below 1; among the peers they are 1.0000, but for fastslide, which
decodes a little differently. CPU time misses waiting, and includes threads that spin.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import inputs
import machine
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from support.slides import make_big_slide  # of the tests; `inputs` sets the path

from pipeline.base.console import table
from pipeline.base.cores import usable_cores
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.plan import PlanConfig
from pipeline.slides.reader import Slide
from stages.plan import plan_slides

HERE = Path(__file__).resolve().parent
MPP = 0.5
WITHOUT, WITH = 2.5, 2.0
"""From the issue: times the best peer, without pixels and with them; `embed` as without."""
EXTRACT, EMBED = "extract-teacher", "embed"
SEEN = 64
"""Patches that the encoder's batch norms have seen. Our choice."""
RESAMPLINGS = ("lanczos-pillow", "lanczos-torch")
TINY = "vit_tiny_patch16_224"
TINY_ARGUMENTS: dict[str, Any] = {
    "embed_dim": 64,
    "depth": 1,
    "num_heads": 1,
    "class_token": False,
    "global_pool": "avg",
}
"""The tiny encoder: one block of a vision transformer. Our choice, from the issue's numbers: if each tile decoded once
gives 1,243 patches a second on two threads, the resampling takes 0.66 ms of one, and all with the encoder gives about
850, then the encoder takes 0.04 ms. This one takes some tenths.
"""


@dataclass
class Side:
    """A tool with its settings, which runs in a process of its own.

    Attributes:
        tool: its name.
        python: the interpreter of its environment.
        program: the file that it runs.
        settings: of the program.
        task: what all tools are given.
        folder: for what they write; emptied before each run.
    """

    tool: str
    python: str
    program: str
    settings: dict[str, Any]
    task: dict[str, Any]
    folder: Path
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        """Start the program, and wait until it has loaded all and is warm."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        task = json.dumps(self.task | {"settings": self.settings, "out": str(self.folder / "out")})
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if self.python == sys.executable:
            environment["PYTHONPATH"] = str(HERE.parent)
        with open(self.folder / "errors", "w") as errors:
            self.process = subprocess.Popen(
                [self.python, str(HERE / self.program), task],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.folder,  # cuCIM leaves a log there
                env=environment,
            )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"{self.tool} {self.settings} has died:\n{(self.folder / 'errors').read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self) -> machine.Measured:
        """Have it do its work once; the program then ends."""
        assert self.process is not None
        assert self.process.stdin is not None
        stdin = self.process.stdin

        def ask() -> tuple[float, float]:
            stdin.write("\n")
            stdin.flush()
            answer = self._answer()
            return answer["wall"], answer["cpu"]

        measured = machine.measure_child(ask)
        made = self._answer()
        self.process.communicate()
        num = len(np.load(self.task["coords"]))
        if made["patches"] != num:
            raise RuntimeError(f"{self.tool} {self.settings} embedded {made['patches']} of {num} patches")
        return measured

    def embeddings(self) -> NDArray[np.float32]:
        """float32 (N, D) of its last run."""
        return np.asarray(np.load(self.folder / "out" / "embeddings.npy"))

    def words(self) -> str:
        """The settings for a table."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


def make_plans(folder: Path, slide: Path, num: int | None) -> dict[str, Plan]:
    """A plan of all tissue patches of a slide, or the first `num` in reading order, for each resampling."""
    manifest = Manifest((ManifestRow("slide", str(slide.resolve()), "case"),), folder / "manifest.csv", folder)
    plans = {}
    for resampling in RESAMPLINGS:
        options = {"patches_per_slide": 10**9, "val_fraction": 0, "patch_px": inputs.PATCH_PX, "mpp": MPP}
        plan = plan_slides(manifest, PlanConfig.build(options | {"resampling": resampling}), workers=usable_cores())
        (planned,) = plan.slides
        first = replace(planned, coords_l0_px=planned.coords_l0_px[:num], split=planned.split[:num])
        plans[resampling] = replace(plan, slides=(first,))
    return plans


def make_encoder(folder: Path, name: str, slide: Path, plan: Plan) -> str:
    """The name by which timm and G2L load an encoder with random weights from a folder. Batch norms have seen patches
    of the slide: else the embeddings would be too small for float16.
    """
    torch.manual_seed(0)
    arguments = TINY_ARGUMENTS if name == "tiny" else {}
    architecture = TINY if name == "tiny" else name
    encoder = timm.create_model(architecture, num_classes=0, **arguments).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics are plain means
    (planned,) = plan.slides
    coords = planned.coords_l0_px[:: max(len(planned.coords_l0_px) // SEEN, 1)][:SEEN].tolist()
    reader = Slide(slide)
    patches = torch.from_numpy(np.stack([reader.read_patch(x, y, planned.geometry) for x, y in coords]))
    with torch.no_grad():
        encoder(patches.permute(0, 3, 1, 2).float() / 64 - 2)
    timm.models.save_for_hf(encoder, str(folder / "encoder"), model_args=arguments, safe_serialization=True)
    return f"local-dir:{folder / 'encoder'}"


def settings_to_try(peer: str, cores: int) -> dict[str, list[dict[str, Any]]]:
    """By what the table calls it: settings of a peer, of which the fastest is used."""
    workers = range(cores + 1)
    if peer == "LazySlide":
        return {
            f"LazySlide, {reader}": [
                {"reader": reader, "workers": num, "batch_size": 32, "normalise": normalise}
                for num in workers
                for normalise in ("batch", "tile")
            ]
            for reader in ("openslide", "fastslide")
        }
    cucim = [
        {"backend": "cucim", "workers": 0, "batch_size": size, "cucim_workers": num}
        for num in range(1, cores + 1)
        for size in (64, 128)
    ]
    others = [
        {"backend": backend, "workers": num, "batch_size": 64, "cucim_workers": 1}
        for backend in ("openslide", "vips")
        for num in workers
    ]
    return {"slide2vec": cucim + others}


def fastest(tried: Iterable[Side]) -> Side | None:
    """The side that took least wall time. One that cannot run, say for a reader that is not installed, is left out, and
    said.
    """
    took: list[tuple[float, Side]] = []
    for side in tried:
        try:
            side.start()
            measured = side.run()
        except RuntimeError as error:
            print(f"left out: {side.tool}: {side.words()}: {str(error).splitlines()[-1]}", file=sys.stderr, flush=True)
            continue
        took.append((measured.wall, side))
        seconds = f"{measured.wall:.2f} s, CPU {measured.cpu:.2f} s"
        print(f"tried {side.tool}: {side.words()}: {seconds}", file=sys.stderr, flush=True)
    return min(took, key=lambda pair: pair[0])[1] if took else None


def agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float]:
    """The median cosine of a patch's two embeddings, each less its mean over patches; and the share of patches whose
    embedding is closest to ours of the same patch.
    """
    a, b = (
        centred / np.linalg.norm(centred, axis=1, keepdims=True)
        for centred in (each - each.mean(0) for each in (ours, theirs))
    )
    cosine = b @ a.T
    return float(np.median(np.diag(cosine))), float((cosine.argmax(1) == np.arange(len(cosine))).mean())


def our_sides(task: dict[str, Any], folder: Path, resamplings: Sequence[str]) -> dict[str, Side]:
    """G2L's commands, by what the table calls them; extract-teacher with each of `resamplings`."""
    settings = {
        f"extract-teacher, {how}, {resampling}": {"command": EXTRACT, "pixels": pixels, "resampling": resampling}
        for how, pixels in (("no pixels", "none"), ("pixels", "jpegxl"))
        for resampling in resamplings
    } | {"embed": {"command": EMBED}}
    return {
        name: Side("G2L", sys.executable, "peer_g2l.py", each, task, folder / f"g2l-{number}")
        for number, (name, each) in enumerate(settings.items())
    }


def peer_sides(args: argparse.Namespace, task: dict[str, Any], folder: Path) -> dict[str, Side]:
    """The peers that were given, each with its fastest settings."""
    few = folder / "few.npy"
    np.save(few, np.load(task["coords"])[: args.try_patches])
    programs = {"LazySlide": (args.lazyslide, "peer_lazyslide.py"), "slide2vec": (args.slide2vec, "peer_slide2vec.py")}
    sides = {}
    for peer, (python, program) in programs.items():
        if python is None:
            print(f"{peer} is left out: --{peer.lower()} names no environment with it", file=sys.stderr)
            continue
        for name, choices in settings_to_try(peer, usable_cores()).items():
            where = folder / name.replace(", ", "-")
            tried = [Side(peer, python, program, choice, task | {"coords": str(few)}, where) for choice in choices]
            best = fastest(tried)
            if best is not None:
                sides[name] = replace(best, task=task, process=None)
    return sides


def report(sides: Mapping[str, Side], ours: Iterable[str], rounds: machine.Rounds, num: int) -> str:
    """The table; returns the peer that is fastest."""
    reference = sides[next(iter(ours))].embeddings()
    lines = []
    for name, side in sides.items():
        wall, cpu = (median(getattr(r[name], clock) for r in rounds.rounds) for clock in ("wall", "cpu"))
        cosine, nearest = agreement(reference, side.embeddings())
        lines.append((name, f"{num / wall:.0f}", f"{cpu / num * 1000:.2f}", f"{cosine:.4f}", f"{nearest:.1%}"))
    print(table(lines, ("", "patches/s", "CPU ms a patch", "cosine", "nearest"), right=range(1, 5)))
    for name, side in sides.items():
        if side.tool != "G2L":
            print(f"{name}: {side.words()}")
    return min((name for name in sides if name not in ours), key=rounds.seconds)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument(
        "--lazyslide", type=os.path.abspath, metavar="PYTHON", help="interpreter of an environment with LazySlide"
    )
    parser.add_argument(
        "--slide2vec", type=os.path.abspath, metavar="PYTHON", help="interpreter of an environment with slide2vec"
    )
    parser.add_argument("--encoder", default="tiny", metavar="TIMM_NAME", help="[%(default)s: see TINY]")
    parser.add_argument("--size-px", type=int, default=24_576, help="side of the slide [%(default)s]")
    parser.add_argument("--patches", type=int, help="patches, the first ones [all]")
    parser.add_argument(
        "--resampling", nargs="+", choices=RESAMPLINGS, default=list(RESAMPLINGS), help="of extract-teacher [both]"
    )
    parser.add_argument("--try-patches", type=int, default=864, help="patches to try settings with [%(default)s]")
    inputs.slide_option(parser)
    inputs.device_option(parser)
    args = parser.parse_args()
    inputs.start_device(args.device)  # a device that is not there ends this before programs are started
    if args.lazyslide is None and args.slide2vec is None:
        parser.error("name a peer's environment: --lazyslide PYTHON, --slide2vec PYTHON")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide = args.slide or make_big_slide(folder / "slide.svs", width=args.size_px, height=args.size_px)
        plans = make_plans(folder, slide, args.patches)
        for resampling, plan in plans.items():
            write_plan(plan, folder / f"{resampling}.h5")
        (planned,) = plans[RESAMPLINGS[0]].slides
        num = len(planned.coords_l0_px)
        np.save(folder / "corners.npy", planned.coords_l0_px)
        task = {
            "slide": str(slide),
            "coords": str(folder / "corners.npy"),
            "plans": {resampling: str(folder / f"{resampling}.h5") for resampling in RESAMPLINGS},
            "encoder": make_encoder(folder, args.encoder, slide, plans[RESAMPLINGS[0]]),
            "device": args.device,
            "patch_px": inputs.PATCH_PX,
            "patch_l0_px": round(planned.geometry.patch_l0_px),
            "mpp": MPP,
        }
        ours = our_sides(task, folder, args.resampling)
        peers = peer_sides(args, task, folder)
        if not peers:
            parser.error("no peer could be run")
        sides = ours | peers
        rounds = machine.measure_rounds(
            {name: side.run for name, side in sides.items()},
            wanted=args.rounds,
            patience=args.patience,
            before={name: side.start for name, side in sides.items()},
        )
        print(f"{num} patches of 224 px at 0.5 um/px from 0.25, {args.encoder}, {usable_cores()} cores")
        best = report(sides, ours, rounds, num)
    print(rounds.words())
    print(f"times {best}, the fastest peer:")
    for name, side in ours.items():
        ratio, needed = rounds.ratio([best], [name]), WITH if side.settings.get("pixels") == "jpegxl" else WITHOUT
        cpu = rounds.cpu_ratio([best], [name])
        met = "met" if ratio >= needed else "NOT MET"
        print(f"  {name}: {ratio:.2f} (needs {needed:g}: {met}); of CPU time {cpu:.2f}")
    closing = f"extract-teacher, no pixels, {args.resampling[-1]}"
    print(f"{closing}:")
    return machine.conclude(rounds.ratio([best], [closing]), at_least=WITHOUT, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
