"""What an evaluation starts from: its folder, and all tables, images, feature files and stores, looked through before
anything is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.cores import usable_cores
from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.base.outside import read_json, read_toml, reading
from pipeline.config.base import differences, to_toml
from pipeline.config.model_names import split_folder
from pipeline.config.tools import EvaluateConfig
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, write_text
from pipeline.evaluate.fidelity.score import StoreRows, choose_store_rows
from pipeline.evaluate.images import ScannedImages, scan_images
from pipeline.evaluate.patch_benchmark.copies import require_no_leak
from pipeline.evaluate.patch_benchmark.data import PatchSet, read_patch_set
from pipeline.evaluate.patch_benchmark.section import prepare
from pipeline.evaluate.robustness.copies import with_note_on_copies
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set
from pipeline.evaluate.slide_benchmark.score import SurveyedSlides, look_at_slides
from pipeline.report.content import Exclusion
from pipeline.store.store import Store
from pipeline.store.teachers import find_teacher
from pipeline.student.resolve import NamedModel

OPTIONS_FILE = "evaluate.toml"
DAMAGED = "Delete the folder, or choose another --out"
MOST_REPORT_BYTES = 1 << 32
"""4 GiB, of a report's JSON. Our choice: a record a scored slide or patch and model, a few hundred bytes each."""
BEFORE_THERE_WERE = {"protocol": "plain"}
"""What reports that are older than an option were made with."""


@dataclass(frozen=True)
class Images:
    """Image files that were looked through: those that can be read, and what is wrong with the others."""

    paths: list[Path]
    scanned: ScannedImages
    exclusions: list[Exclusion]

    @property
    def usable(self) -> NDArray[np.int64]:
        """Indices of the images that can be read."""
        return self.scanned.usable()


@dataclass(frozen=True)
class Inputs:
    """All data of an evaluation; `None` is what was not asked for."""

    store: Store | None
    store_rows: StoreRows | None
    patches: tuple[PatchSet, Images] | None
    robustness: tuple[RobustnessSet, Images] | None
    features: list[tuple[str, Path]]
    slides: SurveyedSlides | None


def start_folder(out: Path, config: EvaluateConfig, precision: str) -> None:
    """Make the folder, or see that its report was made with the same options and in the same arithmetic.

    Raises:
        ConfigError: it was made with others, or the folder is not empty and no evaluation's.
    """
    make_output_folder(out)
    path, report = out / OPTIONS_FILE, out / "report.json"
    if not path.exists() and not holds_nothing(out):
        raise ConfigError(f"{out} is not empty and holds no report; nothing is overwritten. Choose another --out")
    if path.exists() and report.exists():  # without a report, an evaluation has failed, and may have been mended
        with reading(path, "damaged", ConfigError, DAMAGED):
            recorded = {name: value for name, value in read_toml(path)["evaluate"].items() if name != "out"}
            old = EvaluateConfig.build(BEFORE_THERE_WERE | recorded).absolute().deciding()
            old |= {"precision": read_precision(report)}
        if changes := differences(old, config.absolute().deciding() | {"precision": precision}):
            listing = "\n".join(f"  {line}" for line in changes)
            raise ConfigError(f"{out} holds a report of other options, and is not overwritten (report -> now):\n"
                              f"{listing}\nChoose another --out")  # fmt: skip
    remove_asides(out)
    write_text(path, to_toml({"evaluate": {"out": str(out.absolute())} | config.stored()}))


def read_precision(report: Path) -> str:
    """The arithmetic that a report's embeddings were made in.

    Raises:
        ConfigError: it is damaged.
    """
    with reading(report, "damaged", ConfigError, DAMAGED):
        return str(read_json(report, MOST_REPORT_BYTES)["settings"]["precision"])


def look_at_inputs(config: EvaluateConfig) -> Inputs:
    """Read every table and look through every image and every feature file.

    Raises:
        ConfigError: nothing to evaluate, or an option lacks its other half.
        G2LError: an input cannot be used.
    """
    if (config.slides is None) != (not config.features):
        raise ConfigError(
            "--slides and --features belong together: labels, and a folder of feature files for each model"
        )
    wanted = (config.store, config.patches, config.slides, config.robustness)
    if not config.cost and all(value is None for value in wanted):
        raise ConfigError("nothing to evaluate: give --store, --patches, --slides with --features, or --robustness")
    if config.teacher and not config.store:
        raise ConfigError("--teacher says which of a store's teachers is meant; give --store too")
    workers = config.workers or usable_cores()
    store = Store(config.store) if config.store else None
    if store and config.teacher:
        store = find_teacher(store, config.teacher)
    patches = robustness = None
    if config.patches:
        patch_set = read_patch_set(config.patches, config.images_root)
        images = look_through(patch_set.paths, workers, config.patches)
        patches = require_no_leak(patch_set.select(images.usable), images.scanned), images
        prepare(patches[0], config)  # tells what is wrong with classes and cases now, not after hours of embedding
    if config.robustness:
        robustness_set = read_robustness_set(config.robustness, config.images_root)
        images = look_through(robustness_set.paths, workers, config.robustness)
        usable = np.zeros(len(images.paths), dtype=bool)
        usable[images.usable] = True
        robustness = with_note_on_copies(robustness_set.select(usable), images.scanned), images
        require_neighbours(robustness[0], config.ri_k)
    rows = choose_store_rows(store, config) if store else None
    features = named_folders(config.features or [])
    slides = look_at_slides(config.slides, features, config) if config.slides else None
    return Inputs(store, rows, patches, robustness, features, slides)


def require_neighbours(found: RobustnessSet, k: int | None) -> None:
    """See early that every patch has `k` patches of other slides within each of its subsets; `None`: k is chosen later.

    Raises:
        ConfigError: some patch has fewer.
    """
    rows = found.index
    if rows is None or k is None:
        return
    subsets = np.full(len(rows.slides), "") if rows.subsets is None else rows.subsets
    others = {
        str(name): int(len(slides) - np.unique(slides, return_counts=True)[1].max())
        for name in np.unique(subsets)
        if len(slides := rows.slides[subsets == name])
    }
    fewest = min(others, key=others.__getitem__)
    if k > others[fewest]:
        within = f" within subset {fewest!r}" if fewest else ""
        raise ConfigError(
            f"--ri-k {k}: some patch of {found.path} has only {others[fewest]} patches of other slides{within}; take a "
            f"k of at most {others[fewest]}, or leave it out for one that is chosen"
        )


def look_through(paths: Sequence[Path], workers: int, source: Path) -> Images:
    """Scan images; those that cannot be used become exclusions.

    Raises:
        BenchmarkError: none can be used.
    """
    scanned = scan_images(paths, workers)
    exclusions = [Exclusion(str(paths[i]), problem) for i, problem in scanned.problems.items()]
    if len(exclusions) == len(paths):
        raise BenchmarkError(f"{source}: none of its {len(paths)} images can be used; the first, {paths[0]}: "
                             f"{exclusions[0].why}")  # fmt: skip
    if exclusions:
        say(f"warning: {len(exclusions):,} of {len(paths):,} images of {source} are left out; the report lists them")
    return Images(list(paths), scanned, exclusions)


def named_folders(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """`--features`: label and folder; without a label it is the folder's name.

    Raises:
        ConfigError: a folder does not exist, or two have one label.
    """
    found = []
    for text in texts:
        label, folder = split_folder(text)
        if not folder.is_dir():
            raise ConfigError(f"--features {text}: {folder} is not a folder")
        found.append((label or folder.resolve().name, folder))
    labels = [label for label, _ in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"--features: two are called {twice[0]}; name them: --features LABEL=DIR")
    return found


def check_labels(named: Sequence[NamedModel], inputs: Inputs, config: EvaluateConfig) -> None:
    """See early that every model takes the store's patches, and that the reference is one of the models.

    Raises:
        ConfigError: not so.
    """
    labels = [model.label for model in named] + [label for label, _ in inputs.features]
    if config.reference is not None and config.reference not in labels:
        raise ConfigError(f"--reference {config.reference}: the models are {', '.join(labels)}")
    if note := strangers_note(inputs.features, named):
        say(f"note: {note}")
    for model in named:
        if inputs.store and model.patch_px != inputs.store.patch_px:
            raise ConfigError(f"{model.label} takes patches of {model.patch_px} px, those of {config.store} have "
                              f"{inputs.store.patch_px}. Leave it or --store away")  # fmt: skip


def strangers_note(features: Sequence[tuple[str, Path]], named: Sequence[NamedModel]) -> str:
    """Which feature sets have the label of no model, in words; "" if all have one."""
    labels = [model.label for model in named]
    strangers = [label for label, _ in features if label not in labels]
    if not strangers:
        return ""
    return (
        f"The features {', '.join(strangers)} are of none of the models ({', '.join(labels)}) and stand for themselves."
    )
