"""The folder of an evaluation: its options, and whether a report that is there was made with the same ones."""

from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_json, read_toml, reading
from pipeline.config.base import differences, to_toml
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, write_text
from pipeline.evaluate.options.config import EvaluateConfig

EVALUATE_OPTIONS_FILE = "evaluate.toml"
EMBEDDINGS_FOLDER = "embeddings"
"""Of a report: the models' embeddings, unless there is another cache."""
DAMAGED = "Delete the folder, or choose another --out"
MOST_REPORT_BYTES = 1 << 32
"""4 GiB, of a report's JSON. Our choice: a record a scored slide or patch and model, a few hundred bytes each."""
BEFORE_THERE_WERE = {"protocol": "plain"}
"""What reports that are older than an option were made with."""


def start_folder(out: Path, config: EvaluateConfig, precision: str) -> None:
    """Make the folder if it can be used (`require_usable`), and write the options into it.

    Raises:
        ConfigError: it cannot.
    """
    make_output_folder(out)
    require_usable(out, config, precision)
    remove_asides(out)
    write_text(out / EVALUATE_OPTIONS_FILE, to_toml({"evaluate": {"out": str(out.absolute())} | config.stored()}))


def require_usable(out: Path, config: EvaluateConfig, precision: str) -> None:
    """See that there is no such folder, that it is empty, or that its report was made with the same options and in the
    same arithmetic.

    Raises:
        ConfigError: it was made with others, or the folder is not empty and no evaluation's.
    """
    path, report = out / EVALUATE_OPTIONS_FILE, out / "report.json"
    if is_there(out) and not is_there(path) and not holds_nothing(out):
        raise ConfigError(f"{out} is not empty and holds no report; nothing is overwritten. Choose another --out")
    if is_there(path) and is_there(report):  # without a report, an evaluation has failed, and may have been corrected
        with reading(path, "damaged", ConfigError, DAMAGED):
            recorded = {name: value for name, value in read_toml(path)["evaluate"].items() if name != "out"}
            old = type(config).build(BEFORE_THERE_WERE | recorded).absolute().deciding()
            old |= {"precision": read_precision(report)}
        now = config.absolute().deciding() | {"precision": precision}
        if changes := differences(old, now, config.unsaid()):
            listing = "\n".join(f"  {line}" for line in changes)
            raise ConfigError(
                f"{out} holds a report of other options, and is not overwritten (report -> now):\n"
                f"{listing}\nChoose another --out"
            )


def read_precision(report: Path) -> str:
    """The arithmetic that a report's embeddings were made in.

    Raises:
        ConfigError: it is damaged.
    """
    with reading(report, "damaged", ConfigError, DAMAGED):
        return str(read_json(report, MOST_REPORT_BYTES)["settings"]["precision"])
