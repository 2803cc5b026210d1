"""G2L's part of `peers.py`: `extract-teacher` or `embed`, in process, with the encoder built and the patches known.

All that the commands do otherwise is timed: checks of slides and teacher, hashes, locks, shards and their ledger. Its
settings are `command`, and for extract-teacher `pixels` and `resampling` (a plan of each is in the task).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import inputs
import numpy as np
import peer_protocol
from numpy.typing import NDArray

import stages.embed
import stages.extract_teacher
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.config.stages import ExtractConfig
from pipeline.config.tools import EmbedConfig
from pipeline.features.embedding import Embedder, PreparedSlide, prepare_slide, slide_content
from pipeline.slides.reader import Slide
from pipeline.store.store import Store
from stages.embed_inputs import find_model, plan_grid, read_slides
from stages.extracting.teacher import start_teacher
from stages.many import slide_work


def cut(slide: SlidePlan, rows: slice) -> SlidePlan:
    """The slide with some of its patches only."""
    return replace(slide, coords_l0_px=slide.coords_l0_px[rows], split=slide.split[rows])


class Extract:
    """`g2l extract-teacher`."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.plan = read_plan(Path(task["plans"][task["settings"]["resampling"]]))
        self.config = ExtractConfig(
            teacher=task["encoder"],
            device=task["device"],
            precision="float32",  # as the peers
            pixels=task["settings"]["pixels"],
        )
        self.running = start_teacher(self.config, self.plan)

    def work(self, out: Path, *, warm_up: bool) -> None:
        """As `peer_protocol.Program`."""
        plan: Plan = self.plan
        if warm_up:
            plan = replace(plan, slides=tuple(cut(slide, slice(-peer_protocol.WARM_UP, None)) for slide in plan.slides))
        with patch.object(stages.extract_teacher, "start_teacher", return_value=self.running):
            stages.extract_teacher.extract_teacher(plan, out / "store.zarr", self.config)

    def embeddings(self, out: Path) -> NDArray[Any]:
        """As `peer_protocol.Program`."""
        first = Store(out / "store.zarr").first
        return np.concatenate([first.read_embeddings(shard) for shard in range(first.num_shards)])


class Embed:
    """`g2l embed`, in TRIDENT's layout."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.slide, self.model = Path(task["slide"]), task["encoder"]
        self.config = EmbedConfig(
            layout="trident", mpp=task["mpp"], patch_px=task["patch_px"], device=task["device"], precision="float32"
        )
        named, manifest = find_model(self.model, self.config), read_slides(self.slide, None)
        self.embedder: Embedder = stages.embed.build_embedder(named, self.config, "float32", None)
        slide, row = Slide(self.slide), manifest.rows[0]
        prepared = prepare_slide(slide, row, slide_content(slide, row.slide_id), plan_grid(named, self.config))
        self.prepared = some(prepared, slice(len(np.load(task["coords"]))))

    def work(self, out: Path, *, warm_up: bool) -> None:
        """As `peer_protocol.Program`."""
        prepared = some(self.prepared, slice(-peer_protocol.WARM_UP, None)) if warm_up else self.prepared
        with (
            patch.object(stages.embed, "build_embedder", return_value=self.embedder),
            patch.object(slide_work, "prepare_slide", return_value=prepared),
        ):
            stages.embed.embed(self.model, self.slide, out / "features", self.config, options={})

    def embeddings(self, out: Path) -> NDArray[Any]:
        """As `peer_protocol.Program`."""
        (path,) = [path for path in out.rglob("*.h5") if "features" in h5py.File(path)]
        with h5py.File(path) as file:
            return np.asarray(file["features"])


def some(prepared: PreparedSlide, rows: slice) -> PreparedSlide:
    """The slide with some of its patches only."""
    return replace(prepared, plan=cut(prepared.plan, rows), tissue_fraction=prepared.tissue_fraction[rows])


def load(task: dict[str, Any]) -> peer_protocol.Program:
    """The command that the task's settings name."""
    return Embed(task) if task["settings"]["command"] == "embed" else Extract(task)


if __name__ == "__main__":
    with inputs.silence():
        peer_protocol.serve(load)
