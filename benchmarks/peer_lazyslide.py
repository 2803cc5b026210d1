"""LazySlide's part of `peers.py`; runs in an environment with LazySlide, which need not be ours.

`lazyslide.tl.feature_extraction` on tiles at the given corners. Its settings are `reader` (openslide or fastslide),
`workers` (of its DataLoader) and `normalise`: each tile by torchvision in the loader, as LazySlide does it for its own
models but without resizing (the tiles have the encoder's size), or a batch at a time before the encoder. The embeddings
go to disk by `numpy.save`, which costs less than LazySlide's own store.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lazyslide
import numpy as np
import peer_protocol
import timm
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2
from wsidata import TileSpec, open_wsi
from wsidata.io import add_tiles


class Normalised(torch.nn.Module):
    """The encoder, on uint8 batches (B, 3, P, P)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, encoder: torch.nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)).view(1, 3, 1, 1))
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.encoder(torch.addcmul(self.shift, pixels.float(), self.scale))
        return embeddings


def to_tensor(tile: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (P, P, 3) -> uint8 (3, P, P)."""
    return torch.from_numpy(tile).permute(2, 0, 1)


class LazySlide:
    """A slide that is open, with its tiles, and the encoder."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, settings = task, task["settings"]
        self.workers, self.batch_size = settings["workers"], settings["batch_size"]
        encoder = timm.create_model(task["encoder"], pretrained=True, num_classes=0).eval()
        statistics: Any = encoder.pretrained_cfg
        mean, std = statistics["mean"], statistics["std"]
        self.device = task["device"]
        self.model: torch.nn.Module
        self.transform: Callable[[Any], torch.Tensor]
        if settings["normalise"] == "batch":
            self.model, self.transform = Normalised(encoder, mean, std).eval(), to_tensor
        else:
            steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=mean, std=std)]
            self.model, self.transform = encoder, v2.Compose(steps)
        self.wsi = open_wsi(task["slide"], store=None, reader=settings["reader"])
        spec = TileSpec.from_wsidata(self.wsi, tile_px=task["patch_px"], mpp=task["mpp"])
        corners = np.load(task["coords"])
        for key, xys in (("warm", corners[-peer_protocol.WARM_UP :]), ("tiles", corners)):
            add_tiles(self.wsi, key=key, xys=xys, tile_spec=spec, tissue_ids=np.zeros(len(xys), int))

    def work(self, out: Path, *, warm_up: bool) -> None:
        """As `peer_protocol.Program`."""
        features = lazyslide.tl.feature_extraction(
            self.wsi,
            self.model,
            model_name="encoder",
            transform=self.transform,
            device=self.device,
            amp=False,
            batch_size=self.batch_size,
            num_workers=self.workers,
            pbar=False,
            tile_key="warm" if warm_up else "tiles",
            return_features=True,
        )
        np.save(out / "features.npy", features)

    def embeddings(self, out: Path) -> Any:
        """As `peer_protocol.Program`."""
        return np.load(out / "features.npy")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    peer_protocol.serve(LazySlide)
