"""The folder of a study: its runs, their scores, its tables; and whether a study that is there may be extended.

config.toml           the resolved options; can be passed to --config
study.json            what all runs have in common
runs/SETTING/SEED/    a run of `train-student` each
scores/SETTING/SEED.json   sums of its held-out scores by case
embeddings/           embeddings of the held-out rows, by hash
evaluate/             reports of `g2l evaluate`, one a seed
"""

from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.config.base import differences, to_toml
from pipeline.config.stages import TrainConfig
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, write_json, write_text

STUDY_FILE = "study.json"


class StudyFolder:
    """A study's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study_path = folder / STUDY_FILE
        self.embeddings = folder / "embeddings"
        self.reports = folder / "evaluate"

    def run(self, label: str, seed: int) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / label / str(seed)

    def sums(self, label: str, seed: int) -> Path:
        """File of a run's sums."""
        return self.folder / "scores" / label / f"{seed}.json"

    def start(self, command: str, common: dict[str, Any], record: dict[str, Any]) -> None:
        """Make the folder, or see that its study has the same base; write the record of this call.

        Args:
            command: "ablate" or "curve".
            common: what all runs have in common: "options" that decide a run, by name, and facts of the store.
            record: options and paths, for `config.toml`.

        Raises:
            ConfigError: the folder is another study's, or holds something else; names what differs.
        """
        make_output_folder(self.folder)
        now = {"command": command, **common}
        if is_there(self.study_path):
            changes = differences(self._recorded(), now, {"options": TrainConfig.unsaid()})
            if changes:
                listing = "\n".join(f"  {line}" for line in changes)
                raise ConfigError(
                    f"{self.folder} holds a study of another base, and is not overwritten (study -> now):\n{listing}\n"
                    "A study can be extended by values and seeds. For another base, choose another --out"
                )
        elif not holds_nothing(self.folder):
            raise ConfigError(
                f"{self.folder} is not empty and holds no study; nothing is overwritten. Choose another --out"
            )
        remove_asides(self.folder)  # those of scores too; runs and reports clear their own, unless they are finished
        write_json(self.study_path, now)
        write_text(self.folder / "config.toml", to_toml({command: {"out": str(self.folder.absolute())} | record}))

    def _recorded(self) -> dict[str, Any]:
        """The record of the study; options that came after it have their defaults.

        Raises:
            ConfigError: it is damaged.
        """
        with reading(self.study_path, "damaged", ConfigError, "Choose another --out"):
            recorded = read_json(self.study_path)
            return recorded | {"options": base_record(recorded["options"])}


def base_record(values: dict[str, Any]) -> dict[str, Any]:
    """The options of a base that decide a run, with their values; without `augment` where the store decides it.

    Raises:
        ConfigError: a value is wrong.
    """
    config = TrainConfig.build(values).absolute()
    record = {
        name: value
        for name, value in config.record().items()
        if TrainConfig.says(name, "decides") != "nothing" and name != "seed"
    }
    return record if "augment" in values else {name: value for name, value in record.items() if name != "augment"}
