"""slide2vec's part of `peers.py`; runs in an environment with slide2vec, which need not be ours.

`Model.embed_tiles` on a tiling result with the given corners: tiles are read on the fly in blocks of up to 8 x 8, its
fastest way. Batches hold whole blocks (`adaptive_batching`): else a block that two batches share would be read twice.
Its settings are `backend` (cucim, openslide or vips), `batch_size`, `workers` (of its DataLoader; for cucim it follows
from the cores and `cucim_workers`), `cucim_workers`.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peer_protocol
import timm
import torch
from hs2p import TilingConfig
from hs2p.tiling.result import TileGeometry, TilingResult
from hs2p.wsi.reader import open_slide
from numpy.typing import NDArray
from slide2vec import ExecutionOptions, Model, PreprocessingConfig
from slide2vec.encoders.base import TorchTileEncoder
from slide2vec.encoders.registry import register_encoder


def register(task: dict[str, Any]) -> str:
    """Tell slide2vec of the encoder; returns the name that it goes by."""
    made = timm.create_model(task["encoder"], pretrained=True, num_classes=0)
    width = made(torch.zeros(2, 3, 224, 224)).shape[1]

    @register_encoder(
        "peer",
        encode_dim=width,
        input_size=task["patch_px"],
        supports_variable_input_size=True,
        supported_spacing_um=task["mpp"],
        precision="fp32",
        source=task["encoder"],
    )
    class Peer(TorchTileEncoder):
        """The timm encoder of the task's folder."""

        def __init__(self, *, output_variant: str | None = None) -> None:
            encoder = timm.create_model(task["encoder"], pretrained=True, num_classes=0)
            statistics: Any = encoder.pretrained_cfg
            super().__init__(
                encoder,
                encode_dim=width,
                input_size=task["patch_px"],
                mean=statistics["mean"],
                std=statistics["std"],
                output_variant=output_variant,
            )

    return "peer"


def tiling_result(task: dict[str, Any], corners: NDArray[np.int64], tile_size_l0: int, backend: str) -> TilingResult:
    """What slide2vec's tiling would give if it found tiles at `corners`, read at level 0."""
    slide = open_slide(task["slide"], backend, require_spacing=False)
    mpp = task["mpp"] * task["patch_px"] / tile_size_l0
    tiles = TileGeometry(
        x=corners[:, 0],
        y=corners[:, 1],
        tissue_fractions=np.ones(len(corners)),
        requested_tile_size_px=task["patch_px"],
        requested_spacing_um=task["mpp"],
        read_level=0,
        read_tile_size_px=tile_size_l0,
        read_spacing_um=mpp,
        tile_size_lv0=tile_size_l0,
        is_within_tolerance=False,
        base_spacing_um=mpp,
        slide_dimensions=list(slide.dimensions),
        level_downsamples=[x for x, _ in slide.level_downsamples],
        overlap=0.0,
        min_tissue_fraction=0.5,
    )
    unused = dict.fromkeys(("seg_sthresh", "seg_sthresh_up", "seg_mthresh", "seg_close"))
    return TilingResult(
        tiles=tiles,
        sample_id="slide",
        image_path=task["slide"],
        backend=backend,
        requested_backend=backend,
        tolerance=0.05,
        step_px_lv0=tile_size_l0,
        tissue_method="precomputed_mask",
        requested_seg_downsample=64,
        seg_downsample=64,
        seg_level=0,
        seg_spacing_um=mpp,
        ref_tile_size_px=task["patch_px"],
        a_t=0,
        a_h=0,
        filter_white=False,
        filter_black=False,
        white_threshold=255,
        black_threshold=0,
        fraction_threshold=1.0,
        **unused,
    )


class Slide2Vec:
    """The model, loaded, and the tiles."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self.settings = task, task["settings"]
        backend, patch_px, mpp = self.settings["backend"], task["patch_px"], task["mpp"]
        self.model = Model(name=register(task), device=task["device"])
        self.preprocessing = PreprocessingConfig(
            tiling=TilingConfig(
                requested_spacing_um=mpp, requested_tile_size_px=patch_px, tolerance=0.05, overlap=0.0, backend=backend
            ),
            adaptive_batching=True,
            num_cucim_workers=self.settings["cucim_workers"],
        )
        corners, side = np.load(task["coords"]), task["patch_l0_px"]
        self.warm_up = tiling_result(task, corners[-peer_protocol.WARM_UP :], side, backend)
        self.tiles = tiling_result(task, corners, side, backend)

    def work(self, out: Path, *, warm_up: bool) -> None:
        """As `peer_protocol.Program`."""
        execution = ExecutionOptions(
            output_dir=out,
            batch_size=self.settings["batch_size"],
            num_workers_per_gpu=self.settings["workers"],
            num_gpus=1,
            precision="fp32",
        )
        slide = {"sample_id": "slide", "image_path": self.task["slide"]}
        tiles = self.warm_up if warm_up else self.tiles
        self.model.embed_tiles([slide], [tiles], preprocessing=self.preprocessing, execution=execution)

    def embeddings(self, out: Path) -> Any:
        """As `peer_protocol.Program`."""
        (path,) = out.rglob("slide.pt")
        return torch.load(path).numpy()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    peer_protocol.serve(Slide2Vec)
