"""Write embeddings in the file layouts of TRIDENT, CLAM, STAMP and slide2vec: one set of files a slide.

trident   {mag}x_{px}px_{overlap}px_overlap/patches/{slide}_patches.h5, .../features_{encoder}/{slide}.h5
clam      patches/{slide}.h5, pt_files/{slide}.pt, h5_files/{slide}.h5
stamp     {slide}.h5
pt        tiles/{slide}.coordinates.npz, tile_embeddings/{slide}.pt, .../{slide}.meta.json   (as slide2vec)

Names, types and attributes were read in each tool's published writing and reading code in 2026-11. The last file of a
slide is written last and carries the mark: what made it, from which slide, how many patches; without it the others do
not count. What it leaves out: TRIDENT's contours and thumbnails, CLAM's masks, STAMP's cache.
"""

import hashlib
import io
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError, EmbedError
from pipeline.base.outside import parse_object, read_json, reading
from pipeline.base.units import magnification
from pipeline.cohort.plan import SlidePlan, coords_attributes
from pipeline.config.stages import PlanConfig
from pipeline.disk.files import sha256_json, write_bytes, write_json
from pipeline.features.files import read_attributes, write_features

Layout = Literal["trident", "clam", "stamp", "pt"]
DTYPES: Final[dict[str, tuple[str, ...]]] = {
    "trident": ("float32", "float16"),
    "clam": ("float32",),
    "stamp": ("float16",),
    "pt": ("float32", "float16"),
}
"""Types that a layout's features may have, the usual one first; CLAM and STAMP know one each."""
MARK = "g2l"
"""Attribute of a file, or key of a JSON file, that holds the mark."""
MARK_VERSION = 1
STAMP_VERSION = "2.1.0"
"""The first version of STAMP with these attributes. It refuses files of versions newer than itself, so the oldest is
written.
"""
TRIDENT_ATTRIBUTES = ("patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap",
                      "name", "savetodir", "level0_width", "level0_height")  # fmt: skip
UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
"""What an encoder's name should not bring into the name of a folder."""


@dataclass(frozen=True)
class Mark:
    """What a finished slide says of itself.

    Attributes:
        made_by: model and settings, as JSON types; the same for all slides of a folder.
        slide: which slide, by its content.
        rows: patches with an embedding.
        failed: patches that were left out.
        sha256: hex digest of the features' and of the coordinates' little-endian bytes.
        files: bytes of the slide's other files, by kind.
    """

    made_by: dict[str, Any]
    slide: dict[str, Any]
    rows: int
    failed: int
    sha256: dict[str, str]
    files: dict[str, int]

    def checked(self) -> "Mark":
        """The mark, as it was read from a file of anybody's.

        Raises:
            ValueError: a value is of another type than it should be.
        """
        tables = (self.made_by, self.slide, self.sha256, self.files)
        if not all(isinstance(table, dict) for table in tables) or not all(
            isinstance(count, int) and count >= 0 for count in (self.rows, self.failed)
        ):
            raise ValueError("values of other types")
        return self

    def text(self) -> str:
        """The mark as JSON, with a hash of all that the embeddings depend on."""
        whole = {"version": MARK_VERSION, "hash": sha256_json([self.made_by, self.slide])} | asdict(self)
        return json.dumps(whole, sort_keys=True)


@dataclass(frozen=True, eq=False)
class EmbeddedSlide:
    """One slide with its embeddings, on the way to its files.

    Attributes:
        plan: the slide and all patches that were tried.
        level_size_px: (width, height) of the level that patches are read from.
        made_by, content: what goes into the mark as `made_by` and `slide`.
        coords_l0_px: int64 (N, 2), (x, y) of the patches that could be embedded, level 0.
        tissue_fraction: float64 (N,), of their area.
        features: (N, D), in the type that is stored.
    """

    plan: SlidePlan
    level_size_px: tuple[int, int]
    made_by: dict[str, Any]
    content: dict[str, Any]
    coords_l0_px: NDArray[np.int64]
    tissue_fraction: NDArray[np.float64]
    features: NDArray[np.float32] | NDArray[np.float16]

    def mark(self, files: dict[str, int]) -> Mark:
        """The mark of its files."""
        rows = len(self.features)
        digests = {"features": _digest(self.features), "coords": _digest(self.coords_l0_px)}
        return Mark(self.made_by, self.content, rows, len(self.plan.coords_l0_px) - rows, digests, files)


def folder_name(encoder: str) -> str:
    """An encoder's name as part of a folder's."""
    return UNFIT.sub("_", encoder).strip("._") or "encoder"


@dataclass(frozen=True)
class Place:
    """Where embeddings go: a folder, its layout, the encoder's name, and the grid that the patches are of."""

    folder: Path
    layout: Layout
    encoder: str
    grid: PlanConfig

    def files(self, slide_id: str) -> dict[str, Path]:
        """The files of a slide by kind, in the order of writing; the last one carries the mark."""
        if self.layout == "trident":
            overlap = max(self.grid.patch_px - (self.grid.stride_px or self.grid.patch_px), 0)
            name = f"{magnification(self.grid.mpp):g}x_{self.grid.patch_px}px_{overlap}px_overlap"
            features = self.folder / name / f"features_{folder_name(self.encoder)}" / f"{slide_id}.h5"
            return {"coords": self.folder / name / "patches" / f"{slide_id}_patches.h5", "features": features}
        if self.layout == "clam":
            return {
                "coords": self.folder / "patches" / f"{slide_id}.h5",
                "tensor": self.folder / "pt_files" / f"{slide_id}.pt",
                "features": self.folder / "h5_files" / f"{slide_id}.h5",
            }
        if self.layout == "stamp":
            return {"features": self.folder / f"{slide_id}.h5"}
        return {
            "coords": self.folder / "tiles" / f"{slide_id}.coordinates.npz",
            "tensor": self.folder / "tile_embeddings" / f"{slide_id}.pt",
            "meta": self.folder / "tile_embeddings" / f"{slide_id}.meta.json",
        }

    def marked_file(self, slide_id: str) -> Path:
        """The file of a slide that carries the mark."""
        return list(self.files(slide_id).values())[-1]

    def read_mark(self, slide_id: str) -> Mark | None:
        """The mark of a slide whose files are all there; `None` where it is not finished, or a file is cut short.

        Raises:
            EmbedError: there is a file of that name, but of another maker.
        """
        path = self.marked_file(slide_id)
        if not path.exists():
            return None
        try:
            text = _json_mark(path) if path.suffix == ".json" else read_attributes(path)[""].get(MARK)
        except BenchmarkError:
            return None  # cut short: of no use to anybody
        if text is None:
            raise EmbedError(f"{path} was not made by g2l embed, and is not overwritten. Choose another --out")
        try:
            with reading(path, "no mark of g2l embed", BenchmarkError):
                values = parse_object(text)
                if values.pop("version") != MARK_VERSION:
                    raise EmbedError(f"{path} is of another version of g2l embed. Choose another --out")
                del values["hash"]
                mark = Mark(**values).checked()
        except BenchmarkError:
            return None
        return mark if self._file_bytes(slide_id) == mark.files else None

    def write(self, slide: EmbeddedSlide) -> Mark:
        """Write all files of a slide, each complete or absent, the one with the mark last.

        Raises:
            EmbedError: a file cannot be written.
        """
        files = self.files(slide.plan.slide_id)
        try:
            for path in files.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            if self.layout == "trident":
                return self._write_trident(slide, files)
            if self.layout == "clam":
                return self._write_clam(slide, files)
            if self.layout == "stamp":
                return self._write_stamp(slide, files)
            return self._write_pt(slide, files)
        except OSError as error:
            where = self.marked_file(slide.plan.slide_id)
            raise EmbedError(f"cannot write {where}: {error.strerror or error}. Finished slides are safe; mend it "
                             "and run again") from error  # fmt: skip

    def _file_bytes(self, slide_id: str) -> dict[str, int]:
        """Bytes of a slide's files by kind, without the one with the mark; absent ones are left out."""
        *others, _ = self.files(slide_id).items()
        return {kind: os.path.getsize(path) for kind, path in others if os.path.isfile(path)}

    def _finish(self, slide: EmbeddedSlide) -> Mark:
        """The mark, once the other files are there."""
        return slide.mark(self._file_bytes(slide.plan.slide_id))

    def _write_trident(self, slide: EmbeddedSlide, files: dict[str, Path]) -> Mark:
        attributes = coords_attributes(slide.plan, self.grid)
        of_coords = {name: attributes[name] for name in TRIDENT_ATTRIBUTES}
        of_features = {"name": slide.plan.slide_id, "savetodir": "", "encoder": self.encoder}
        coords = {"coords": slide.coords_l0_px}
        write_features(files["coords"], coords, {"coords": of_coords}, {}, row_chunks=True)
        mark, arrays = self._finish(slide), {"features": slide.features, **coords}
        both = {"features": of_features, "coords": of_coords}
        write_features(files["features"], arrays, both, {MARK: mark.text()}, row_chunks=True)
        return mark

    def _write_clam(self, slide: EmbeddedSlide, files: dict[str, Path]) -> Mark:
        geometry = slide.plan.geometry
        of_coords = {
            "patch_size": round(geometry.patch_level_px),  # CLAM's is in pixels of the level
            "patch_level": geometry.level,
            "downsample": (geometry.downsample, geometry.downsample),
            "downsampled_level_dim": slide.level_size_px,
            "level_dim": slide.level_size_px,
            "name": slide.plan.slide_id,
            "save_path": "",
        }
        write_features(files["coords"], {"coords": slide.coords_l0_px}, {"coords": of_coords}, {})
        write_bytes(files["tensor"], _tensor_bytes(slide.features))
        mark, arrays = self._finish(slide), {"features": slide.features, "coords": slide.coords_l0_px.astype(np.int32)}
        write_features(files["features"], arrays, {}, {"encoder": self.encoder, MARK: mark.text()})
        return mark

    def _write_stamp(self, slide: EmbeddedSlide, files: dict[str, Path]) -> Mark:
        mark = self._finish(slide)
        coords_um = (slide.coords_l0_px * slide.plan.geometry.slide_mpp).astype(np.float32)
        of_file = {
            "stamp_version": STAMP_VERSION,
            "extractor": self.encoder,
            "unit": "um",
            "tile_size_um": self.grid.patch_px * self.grid.mpp,
            "tile_size_px": self.grid.patch_px,
            "code_hash": sha256_json(slide.made_by)[:8],
            "feat_type": "tile",
            MARK: mark.text(),
        }
        write_features(files["features"], {"coords": coords_um, "feats": slide.features}, {}, of_file)
        return mark

    def _write_pt(self, slide: EmbeddedSlide, files: dict[str, Path]) -> Mark:
        buffer = io.BytesIO()
        x, y = slide.coords_l0_px.T
        index = np.arange(len(x), dtype=np.int32)
        np.savez(buffer, tile_index=index, x=x, y=y, tissue_fractions=slide.tissue_fraction.astype(np.float32))
        write_bytes(files["coords"], buffer.getvalue())
        write_bytes(files["tensor"], _tensor_bytes(slide.features))
        mark = self._finish(slide)
        num_tiles, width = slide.features.shape
        meta = {"sample_id": slide.plan.slide_id, "encoder_name": self.encoder, "num_tiles": num_tiles,
                "feature_dim": width, "tile_size_lv0": round(slide.plan.geometry.patch_l0_px),
                "requested_tile_size_px": self.grid.patch_px, "requested_spacing_um": self.grid.mpp,
                MARK: mark.text()}  # fmt: skip
        write_json(files["meta"], meta)
        return mark


def _json_mark(path: Path) -> str | None:
    """The mark in a JSON file.

    Raises:
        BenchmarkError: it cannot be read.
    """
    with reading(path, "not readable", BenchmarkError):
        value = read_json(path).get(MARK)
    return None if value is None else str(value)


def _tensor_bytes(features: NDArray[np.float32] | NDArray[np.float16]) -> bytes:
    """A bare tensor as torch saves it."""
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(features)), buffer)
    return buffer.getvalue()


def _digest(values: NDArray[Any]) -> str:
    """Hex SHA-256 of an array's little-endian bytes in rows."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()
