"""Features as TRIDENT, CLAM, STAMP and slide2vec write them, made from a store: the same embeddings at the same places.

Each writer takes a folder and the slides of `slides_of`, and returns the folder that a user would name.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.store.store import Store


@dataclass(frozen=True, eq=False)
class FeatureSlide:
    """One slide's features, float32 (N, D), and their corners in level 0, int64 (N, 2)."""

    name: str
    features: NDArray[np.float32]
    coords: NDArray[np.int64]
    slide_mpp: float
    patch_px: int
    mpp: float
    size: tuple[int, int]

    @property
    def side_l0(self) -> float:
        return self.patch_px * self.mpp / self.slide_mpp


def slides_of(store: Store, seed: int = 0) -> list[FeatureSlide]:
    """The slides of a finished store, each with its rows in a random order."""
    features = np.concatenate([store.first.read_embeddings(shard) for shard in range(store.first.num_shards)])
    slides, start, rng = [], 0, np.random.default_rng(seed)
    for slide in store.plan.slides:
        order = rng.permutation(len(slide.coords_l0_px))
        rows = features[start : start + len(order)]
        g = slide.geometry
        slides.append(
            FeatureSlide(
                slide.slide_id,
                rows[order].astype(np.float32),
                slide.coords_l0_px[order],
                g.slide_mpp,
                g.patch_px,
                g.target_mpp,
                slide.size_l0_px,
            )
        )
        start += len(order)
    return slides


def changed(slides: Iterable[FeatureSlide], which: str, **values: object) -> list[FeatureSlide]:
    """The slides, with some values of one of them replaced."""
    return [replace(s, **values) if s.name == which else s for s in slides]  # type: ignore[arg-type]


def write_trident(
    folder: Path, slides: Iterable[FeatureSlide], encoder: str = "tiny", compression: str | None = None
) -> Path:
    """`compression` is that of the coordinates."""
    job = folder / "20x_64px_0px_overlap"
    features = job / f"features_{encoder}"
    features.mkdir(parents=True, exist_ok=True)
    for s in slides:
        with h5py.File(features / f"{s.name}.h5", "w") as f:
            width = s.features.shape[1]
            data = f.create_dataset("features", data=s.features, chunks=(1, width), maxshape=(None, width))
            data.attrs.update({"name": s.name, "savetodir": str(features), "encoder": encoder})
            coords = f.create_dataset("coords", data=s.coords, compression=compression)
            coords.attrs.update(
                {
                    "patch_size": s.patch_px,
                    "patch_size_level0": round(s.side_l0),
                    "level0_magnification": 10 / s.slide_mpp,
                    "target_magnification": 10 / s.mpp,
                    "overlap": 0,
                    "name": s.name,
                    "savetodir": str(job),
                    "level0_width": s.size[0],
                    "level0_height": s.size[1],
                }
            )
    return job


def write_clam(folder: Path, slides: Iterable[FeatureSlide], *, tensors: bool = False) -> Path:
    for name in ("patches", "h5_files", "pt_files"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for s in slides:
        with h5py.File(folder / "patches" / f"{s.name}.h5", "w") as f:
            coords = f.create_dataset("coords", data=s.coords)
            coords.attrs.update(
                {
                    "patch_size": round(s.side_l0),
                    "patch_level": 0,
                    "downsample": np.array([1.0, 1.0]),
                    "downsampled_level_dim": np.array(s.size),
                    "level_dim": np.array(s.size),
                    "name": s.name,
                    "save_path": str(folder),
                }
            )
        torch.save(torch.from_numpy(s.features), folder / "pt_files" / f"{s.name}.pt")
        if not tensors:
            with h5py.File(folder / "h5_files" / f"{s.name}.h5", "w") as f:
                f["features"], f["coords"] = s.features, s.coords.astype(np.int32)
    return folder


def write_stamp(folder: Path, slides: Iterable[FeatureSlide]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for s in slides:
        with h5py.File(folder / f"{s.name}.h5", "w") as f:
            f["coords"] = s.coords * s.slide_mpp
            f["feats"] = s.features.astype(np.float16)
            f.attrs.update(
                {
                    "stamp_version": "2.3.0",
                    "extractor": "tiny",
                    "unit": "um",
                    "tile_size_um": s.patch_px * s.mpp,
                    "tile_size_px": s.patch_px,
                    "code_hash": "0" * 64,
                    "feat_type": "tile",
                }
            )
    return folder


def write_slide2vec(folder: Path, slides: Iterable[FeatureSlide], suffix: str = ".pt") -> Path:
    for name in ("tile_embeddings", "tiles"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for s in slides:
        target = folder / "tile_embeddings" / f"{s.name}{suffix}"
        index = np.arange(len(s.coords), dtype=np.int32)
        if suffix == ".pt":
            torch.save(torch.from_numpy(s.features), target)
        else:
            np.savez_compressed(target, features=s.features[::-1], tile_index=index[::-1])
        size = {"tile_size_lv0": round(s.side_l0), "requested_tile_size_px": s.patch_px, "requested_spacing_um": s.mpp}
        own = {"sample_id": s.name, "encoder_name": "tiny", "encoder_level": "tile", "num_tiles": len(index)}
        target.with_name(f"{s.name}.meta.json").write_text(json.dumps(own | (size if suffix == ".pt" else {})))
        np.savez_compressed(
            folder / "tiles" / f"{s.name}.coordinates.npz",
            tile_index=index,
            x=s.coords[:, 0],
            y=s.coords[:, 1],
            tissue_fractions=np.ones(len(index), np.float32),
        )
        meta = {"slide": {"dimensions": list(s.size)}, "tiling": {**size, "n_tiles": len(index)}}
        (folder / "tiles" / f"{s.name}.coordinates.meta.json").write_text(json.dumps(meta))
    return folder


WRITERS: dict[str, Callable[[Path, list[FeatureSlide]], Path]] = {
    "trident": write_trident,
    "clam": write_clam,
    "clam tensors": lambda folder, slides: write_clam(folder, slides, tensors=True),
    "stamp": write_stamp,
    "slide2vec": write_slide2vec,
    "slide2vec npz": lambda folder, slides: write_slide2vec(folder, slides, ".npz"),
}
