"""Export: copy the trained student out of a finished run, prove that timm alone loads it, add files for other tools.

The folder is timm's, with projectors, `student.json` and the card. Adapters for benchmarks are always added, ONNX and
torch.export's program on request. Left out: the projector within those two; it is one linear map.
"""

import os
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from pipeline.base.console import say
from pipeline.base.errors import CheckpointError, EncoderError, G2LError, StoreError, first_line
from pipeline.base.outside import read_bytes, reading
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED, SCRATCH
from pipeline.disk.files import sha256_file, write_text
from pipeline.disk.folders import is_free, new_folder
from pipeline.disk.locks import exclusive
from pipeline.encoders.build import Encoder, build_encoder
from pipeline.encoders.model_config import read_model_config
from pipeline.slides.geometry import PILLOW
from pipeline.student.adapters import ADAPTERS_FOLDER, write_adapters
from pipeline.student.card_files import adapters_section, files_section, with_files
from pipeline.student.describe import STUDENT_WEIGHTS, describe_run_student, weights_file_hash
from pipeline.student.earlier import move_projectors
from pipeline.student.exported import read_student
from pipeline.student.folder import check_projectors, same_embeddings
from pipeline.student.onnx_file import require_packages, write_onnx
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE
from pipeline.student.program import write_program
from pipeline.student.student_json import PROJECTOR_FOLDER, STUDENT_JSON, write_student_json
from pipeline.training.checkpoint import load_checkpoint, load_last_checkpoint
from pipeline.training.run_folder import RunFolder
from stages.publishing.hub_card import HubCard, ways_to_publish, write_hub_card

EXPORT_TOLERANCE = 1e-5
"""Largest difference between the exported and the trained student. Our choice: the same weights in the same code differ
by rounding at most."""


def export_student(run_path: Path, out: Path, formats: Sequence[str] = ("timm",), card: HubCard | None = None) -> str:
    """Copy a finished run's student to `out`, prove that timm loads it to the embeddings of its checkpoint, and
    add the other formats (each compared with it), the adapters and their use.

    Made aside, proven, then renamed: after any error there is nothing at `out`.

    Args:
        formats: of "timm" (always there), "onnx" and "torch-export".
        card: what the header of the card is to have, for the hub; `None` for the plain one.

    Raises:
        G2LError: the run is not finished, or `out` exists or cannot be written.
        ConfigError: the packages of a format are not installed, or the card's report is not of this student.
        StoreError: timm loads it to other embeddings, or not at all.
        ExportError: another format cannot be written, or gives other embeddings.
        EncoderError: the weights or a projector are damaged, or not those that `student.json` names.
    """
    if "onnx" in formats:
        require_packages()
    run = RunFolder(run_path)
    with reading(run.identity_path, "damaged", CheckpointError):
        record = run.read_identity()["student"]
        patch_px = int(record["patch_px"])
    if not run.student.exists():
        raise CheckpointError(f"{run_path} is not finished. Run train-student again, then export")
    if Path(os.path.realpath(run_path)) in Path(os.path.realpath(out)).parents:
        raise G2LError(f"{out} lies inside the run. Choose another --out")
    if not is_free(out):
        raise G2LError(f"{out} exists and is not overwritten. Choose another --out")
    step = run.exported_step()
    checkpoint = load_last_checkpoint(run.checkpoints) if step is None else load_checkpoint(run.checkpoints, step)
    if checkpoint is None:
        raise CheckpointError(f"{run_path} has no checkpoint to compare the student with")
    _require_whole(run.student)
    with exclusive(out, "g2l export"):
        if not is_free(out):  # another export has ended in between
            raise G2LError(f"{out} exists and is not overwritten. Choose another --out")
        try:
            with new_folder(out, "config.json") as aside:
                _copy(run.student, aside, out)
                if not (aside / STUDENT_JSON).exists():  # a run of an earlier version, of whose split nothing is known
                    described = describe_run_student(run, aside, checkpoint["step"], split=None, resampling=PILLOW)
                    write_student_json(aside, described)
                difference = _difference(aside, run.student, record, checkpoint["student"])
                others, weights_sha256 = _add_files(aside, patch_px, formats)
                if card is not None:
                    write_hub_card(aside, run, checkpoint["step"], weights_sha256, card)
        except OSError as error:
            raise G2LError(f"cannot write the student to {out}: {error.strerror or error}") from error
    lines = [
        f"{out}: timm.create_model('{FOLDER_PREFIX}{out}', pretrained=True) gives the run's embeddings "
        f"(largest difference {difference:.2g})"
    ]
    lines += [f"{out / name}: the same to {share:.1g} of the largest value" for name, share in others.items()]
    tools = "kaiko-eva, LazySlide, PathoROB, plismbench, slide2vec, THUNDER, TRIDENT"
    lines.append(f"{out / ADAPTERS_FOLDER}: {tools}; {out / 'README.md'} says how")
    return "\n".join([*lines, *ways_to_publish(out, card)])


def _require_whole(student: Path) -> None:
    """See that a run's student is as training wrote it; what earlier versions have not noted is not known.

    Embeddings alone do not show it: a flipped bit may change them by less than `EXPORT_TOLERANCE`.

    Raises:
        EncoderError: the weights or a projector are damaged, or not those that `student.json` names.
    """
    check_projectors(student)
    described = read_student(student).described
    written = None if described is None else described.encoder.weights_sha256
    path = student / STUDENT_WEIGHTS
    if written is not None and (sha256 := weights_file_hash(path)) != written:
        raise EncoderError(
            f"{path}: not the weights that {STUDENT_JSON} names: SHA-256 {sha256[:12]}, not {written[:12]}. Delete "
            f"{student} and run train-student again: it writes the student anew"
        )


def _copy(student: Path, aside: Path, out: Path) -> None:
    """Copy the student's folder to `aside`.

    Raises:
        G2LError: it cannot be read, or `aside` cannot be written.
    """
    try:
        _copy_folder(student, aside)
        move_projectors(aside)
    except OSError as error:
        raise G2LError(f"cannot copy the student to {out}: {error.strerror or error}. Choose another --out") from error


def _copy_folder(source: Path, to: Path) -> None:
    """Copy a folder's bytes: modes follow the umask (`shutil.copytree` copies those of folders).

    Raises:
        OSError: it cannot be read or written.
    """
    to.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_folder(entry, to / entry.name)
        else:
            shutil.copyfile(entry, to / entry.name)


def _difference(folder: Path, student: Path, record: dict[str, Any], state: dict[str, Tensor]) -> float:
    """Largest difference between the embeddings of the student in `folder`, as timm loads it, and of the trained one.

    Args:
        student: the run's own; it says the architecture where the run started from a folder, which may be gone.
        record: what the run says of its student.
        state: the trained weights, from the run's checkpoint.

    Raises:
        StoreError: it is beyond `EXPORT_TOLERANCE`, or timm does not load the folder.
    """
    of_folder = record["name"].startswith(FOLDER_PREFIX)
    name = f"{FOLDER_PREFIX}{student}" if of_folder else record["name"]
    trained = build_encoder(name, SCRATCH, record["patch_px"]).module
    trained.model.load_state_dict(state)
    try:
        loaded = timm.create_model(f"{FOLDER_PREFIX}{folder}", pretrained=True).eval()
    except Exception as error:  # of a damaged folder timm raises whatever it stumbles over
        raise StoreError(f"timm does not load the run's student ({first_line(error)})") from error
    taken = Encoder(loaded, trained.spec).embed if trained.spec.embedding == "cls+mean" else loaded
    images = torch.randn(4, 3, record["patch_px"], record["patch_px"], generator=torch.Generator().manual_seed(0))
    difference = same_embeddings(trained.eval().embed, taken, images)
    if not difference <= EXPORT_TOLERANCE:  # NaN is not good either
        raise StoreError(f"timm loads the student to other embeddings (largest difference {difference:g})")
    return difference


def _add_files(folder: Path, patch_px: int, formats: Sequence[str]) -> tuple[dict[str, float], str]:
    """Write the other formats, the adapters, and the card's sections on them; returns by file how far it is from torch,
    and the hash of the student's weights.

    Raises:
        ExportError: a format cannot be written, or gives other embeddings.
        OSError: the disk is full, ...
    """
    built = build_encoder(f"{FOLDER_PREFIX}{folder}", PRETRAINED, patch_px)
    encoder = built.module.requires_grad_(False)
    mpp = float(read_model_config(folder).get("mpp", 0))  # 0: exported by an earlier version
    differences = {}
    if "onnx" in formats:
        facts = {
            "architecture": built.spec.architecture,
            "weights_sha256": built.weights_sha256,
            "um_per_px": f"{mpp:g}" if mpp else "see README.md",
            "made_by": f"g2l {metadata.version('g2l')}",
        }
        say(f"writing {ONNX_FILE} and running it by ONNX Runtime")  # minutes for a large student
        differences[ONNX_FILE] = write_onnx(encoder, folder / ONNX_FILE, facts)
    if "torch-export" in formats:
        say(f"writing {PROGRAM_FILE} and running it")
        differences[PROGRAM_FILE] = write_program(encoder, folder / PROGRAM_FILE)
    write_adapters(folder, built.spec)
    card = folder / "README.md"
    hashed = sorted(
        path
        for place in (folder, folder / PROJECTOR_FOLDER, folder / ADAPTERS_FOLDER)
        for path in place.iterdir()
        if path.is_file()
    )
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in hashed if path != card}
    files = files_section(
        built.spec,
        differences,
        weights_beside=(folder / WEIGHTS_FILE).exists(),
        projectors=read_student(folder).projector_files(),
        sha256=hashes,
    )
    with reading(card, "no text", EncoderError):
        text = read_bytes(card).decode()
    write_text(card, with_files(text, files, adapters_section(patch_px, mpp)))
    return differences, built.weights_sha256
