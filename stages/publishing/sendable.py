"""What `g2l publish` may send: the files of a whole export, and nothing that stands in the way of publishing it."""

import os
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import ModelCard

from pipeline.base.console import say
from pipeline.base.errors import EncoderError, ExportError
from pipeline.base.outside import printable, read_bytes, reading
from pipeline.cohort.barcodes import BARCODE
from pipeline.disk.files import sha256_file
from pipeline.student.adapters import ADAPTERS, ADAPTERS_FOLDER
from pipeline.student.card_files import HASHED
from pipeline.student.earlier import PROJECTORS_JSON
from pipeline.student.exported import is_student, read_student
from pipeline.student.folder import check_projectors
from pipeline.student.hub_header import HUB_LICENCES, MAY_PASS_ON, TERMS, TERMS_FILE
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE
from pipeline.student.student_json import STUDENT_JSON

CARD_FILE = "README.md"
NEEDED = ("config.json", "model.safetensors", STUDENT_JSON, CARD_FILE)
"""Files without which a folder is no whole export."""
OPTIONAL = (PROJECTORS_JSON, ONNX_FILE, WEIGHTS_FILE, PROGRAM_FILE, TERMS_FILE)
MOST_STRANGE = 5
"""Files that a message names."""
AGAIN = "Run `g2l export --hub-card` again into a new folder"


def files_to_send(folder: Path) -> dict[str, int]:
    """The files of an exported student by their names in the folder, with their bytes.

    Raises:
        ExportError: it is no folder of `g2l export --hub-card`, a file is missing, changed, a link or none of the
            export, or the card holds a barcode of TCGA.
        EncoderError: `student.json` or a projector is damaged.
    """
    if not folder.is_dir() or not is_student(folder):
        raise ExportError(
            f"{folder}: neither an exported student nor a store. Name what `g2l export --hub-card` wrote, or a store"
        )
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise ExportError(f"{folder}: has no {missing[0]}. {AGAIN}")
    projectors = {teacher.projector for teacher in read_student(folder).teachers}
    adapters = {f"{ADAPTERS_FOLDER}/{name}" for name in ADAPTERS}
    known = {*NEEDED, *OPTIONAL, *projectors, *adapters}
    found = _files_of(folder)
    if strange := found.keys() - known:
        raise ExportError(
            f"{folder}: {_named(strange)}: not of the export, and so not sent. Remove it, or export again"
        )
    check_projectors(folder)
    _require_unchanged(folder, _card_text(folder), found)
    return dict(sorted(found.items()))


def _require_unchanged(folder: Path, card: str, found: Collection[str]) -> None:
    """See that the files are those that the card was written for, and that no patient's barcode is in what people read.

    Raises:
        ExportError: a file is another one, or a barcode of TCGA is there.
    """
    hashes = {name: digest for digest, name in HASHED.findall(card)}
    for name, digest in hashes.items():
        if name not in found or sha256_file(folder / name) != digest:
            raise ExportError(f"{folder / name}: not the file that the card names by its SHA-256. {AGAIN}")
    unknown = set(found) - hashes.keys() - {CARD_FILE}
    hashes_all = any(_once_unhashed(name) for name in hashes)
    if refused := unknown if hashes_all else {name for name in unknown if not _once_unhashed(name)}:
        raise ExportError(f"{folder}: the card has no SHA-256 of {_named(refused)}. {AGAIN}")
    if unknown:
        say(
            f"note: {folder}: exported by an earlier version, whose card has no SHA-256 of {_named(unknown)}: whether "
            "they have changed since is not known. Look at them, or export again"
        )
    for name in (CARD_FILE, STUDENT_JSON):
        if barcode := BARCODE.search(read_bytes(folder / name).decode()):
            raise ExportError(f"{folder / name}: holds {barcode[0]!r}, which reads as a patient's barcode. Take it out")


def _once_unhashed(name: str) -> bool:
    """Whether it is a file of which earlier versions wrote no SHA-256 into the card: an adapter, or the terms."""
    return name == TERMS_FILE or name.startswith(f"{ADAPTERS_FOLDER}/")


def _named(names: Collection[str]) -> str:
    """The first names, for a message."""
    return printable(", ".join(sorted(names)[:MOST_STRANGE])) + (", ..." if len(names) > MOST_STRANGE else "")


def _files_of(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its bytes.

    Raises:
        ExportError: something is neither a regular file nor a folder, or a folder cannot be listed.
    """
    found: dict[str, int] = {}
    for place, folders, names in os.walk(folder, onerror=_raise_unlisted):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ExportError(f"{path}: a link or no file; only files of the export are sent. Remove it")
        found |= {Path(place, name).relative_to(folder).as_posix(): Path(place, name).stat().st_size for name in names}
    return found


def _raise_unlisted(error: OSError) -> None:
    raise ExportError(f"{error.filename}: the folder cannot be listed ({error.strerror}), and so not sent") from error


def _card_text(folder: Path) -> str:
    """The card.

    Raises:
        ExportError: its header is not the hub's.
        EncoderError: it is no text.
    """
    with reading(folder / CARD_FILE, "no text", EncoderError):
        text = read_bytes(folder / CARD_FILE).decode()
    with reading(folder / CARD_FILE, f"the hub would not read its header. {AGAIN}", ExportError):
        header = vars(ModelCard(text).data)
    if header.get("library_name") != "timm" or not (
        header.get("license") in HUB_LICENCES or header.get("license_name")
    ):
        raise ExportError(f"{folder / CARD_FILE}: has not the hub's header. {AGAIN}")
    return text


def in_the_way(folder: Path) -> list[str]:
    """The card's lines on terms that forbid to share the student, or do not say that it is allowed; empty if all allow.

    Raises:
        EncoderError: the card is no text.
    """
    with reading(folder / CARD_FILE, "no text", EncoderError):
        terms = read_bytes(folder / CARD_FILE).decode().partition(TERMS)[2]
    lines = [line[2:] for line in terms.splitlines() if line.startswith("- ")]
    return [line for line in lines if not _allows(line)] or ([] if lines else ["The card says nothing of terms."])


def _allows(line: str) -> bool:
    """Whether a line of the card's terms names a licence under which what is derived may be passed on to all."""
    licence = line.partition(": ")[2].partition(" <")[0].removesuffix(".").lower()
    return licence == "random weights, no terms" or licence in MAY_PASS_ON
