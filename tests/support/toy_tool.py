"""A tool that nobody has, in one file: all that a further file layout needs beside its line in the list of tools.

toy/{slide}.toy           a NumPy archive: `vectors`, `corners_um` and `side_um`
toy/{slide}.about.json    the model's name
"""

import io
from pathlib import Path

import numpy as np

from pipeline.config.feature_tools import FeatureTool
from pipeline.disk.files import write_bytes, write_json
from pipeline.disk.tensor_files import read_npz
from pipeline.features.files import read_beside
from pipeline.features.layouts import MARK, EmbeddedSlide, Finish, Place, Writer, json_mark, marked_resampling
from pipeline.features.tool import FeatureFile, PatchFacts, RawFeatures, Tool

SUFFIX = ".toy"
TOY = FeatureTool("Toy", "support.toy_tool", "toy")
"""Its line."""


def read(file: FeatureFile) -> RawFeatures | None:
    """The vectors, with the corners of their patches."""
    arrays, _ = read_npz(file.path, ("vectors", "corners_um"))
    about = read_beside(file.path.with_suffix(".about.json"))
    return RawFeatures(arrays["vectors"], arrays["corners_um"], about.get("model"), about.get(MARK))


def facts(file: FeatureFile) -> PatchFacts | None:
    """The side of a patch."""
    if file.path.suffix != SUFFIX:
        return None
    arrays, _ = read_npz(file.path, ("side_um", "side_px"))
    return PatchFacts(
        patch_px=float(arrays["side_px"]),
        side_um=float(arrays["side_um"]),
        in_um=True,
        resampling=marked_resampling(read_beside(file.path.with_suffix(".about.json")).get(MARK)),
    )


def files(place: Place, slide_id: str) -> dict[str, Path]:
    """The files of a slide."""
    return {
        "vectors": place.folder / "toy" / f"{slide_id}{SUFFIX}",
        "about": place.folder / "toy" / f"{slide_id}.about.json",
    }


def write(place: Place, slide: EmbeddedSlide, files: dict[str, Path], finish: Finish) -> None:
    """The archive, then the description."""
    grid, buffer = place.grid, io.BytesIO()
    corners_um = slide.coords_l0_px * slide.plan.geometry.slide_mpp
    np.savez(
        buffer,
        vectors=slide.features,
        corners_um=corners_um,
        side_um=np.array(grid.patch_px * grid.mpp),
        side_px=np.array(grid.patch_px),
    )
    write_bytes(files["vectors"], buffer.getvalue())
    write_json(files["about"], {"model": place.encoder, MARK: finish().text()})


TOOL = Tool(
    name="Toy",
    suffixes=(SUFFIX,),
    folders=(("toy",),),
    read=read,
    facts=facts,
    writer=Writer(dtypes=("float32",), files=files, write=write, read_mark=json_mark),
)
