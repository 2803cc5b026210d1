"""What an offline run of Weights & Biases holds: records of the library's own type in a log of LevelDB's format."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWN = "_wandb"
"""Key of the library's own facts in a run's configuration."""


@dataclass
class WandbRun:
    """What a file says of its run.

    Attributes:
        about: the run's own record.
        config: without the library's own key.
        scalars: names of figures.
        artifacts: of each artefact, the names of its files.
        kinds: of records.
    """

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    scalars: set[str] = field(default_factory=set)
    artifacts: list[list[str]] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)


def read_wandb(file: Path) -> WandbRun:
    """The run of a file."""
    from wandb.proto import wandb_internal_pb2

    run = WandbRun()
    for data in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        run.kinds.add(kind)
        run.scalars |= {_name(item) for item in record.history.item}
        for updated in (record.run.config.update, record.config.update):
            run.config |= {_name(item): json.loads(item.value_json) for item in updated if _name(item) != OWN}
        if kind == "run":
            run.about = record.run
        if kind == "artifact":
            run.artifacts.append(sorted(entry.path for entry in record.artifact.manifest.contents))
    return run


def _name(item: Any) -> str:
    return str(item.key) or ".".join(item.nested_key)


def records_of(log: bytes, block: int = 32768, header: int = 7) -> Iterator[bytes]:
    """Records of a log: blocks of parts, each with a checksum, its length and its kind (whole, first, middle, last)."""
    at, parts = header, b""
    while at + header <= len(log):
        if block - at % block < header:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", log, at + 4)
        parts += log[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):
            yield parts
            parts = b""
