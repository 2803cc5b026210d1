"""Folders of a study and a reproduction that were begun, as far as `g2l inspect` reads them."""

from pathlib import Path

from pipeline.public_sets.options import ReproduceConfig
from pipeline.study.folder import StudyFolder, base_record
from stages.studies.reproduce import started_reproduction


def begun_study(folder: Path) -> Path:
    """An ablation of two settings: one run is finished and scored, one is begun."""
    study = StudyFolder(folder)
    study.start("ablate", {"options": base_record({"student": "vit", "weights": "scratch"}), "yardstick": {}}, {})
    for label, is_finished in (("base", True), ("loss=mse", False)):
        run = study.run(label, 0)
        run.mkdir(parents=True)
        (run / "run.json").write_text("{}")
        if is_finished:
            (run / "student").mkdir()
            (run / "student" / "config.json").write_text("{}")
            study.sums(label, 0).parent.mkdir(parents=True)
            study.sums(label, 0).write_text("{}")
    return folder


def begun_reproduction(folder: Path) -> Path:
    """A reproduction of which nothing is scored yet."""
    with started_reproduction(folder, "bach", ReproduceConfig(root=Path("set"), models=["ours=vit@scratch"])):
        pass
    return folder
