"""A store with several held-out cases, a tiny student, and studies of them."""

from pathlib import Path
from typing import Any

from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.store.store import Store
from stages.studies.ablate import Ablation, ablate
from stages.studies.curve import LearningCurve, curve
from support.stores import make_store, plain_vit


def study_store(folder: Path, **options: Any) -> Store:
    """Write `store.zarr` of six slides to train on and eight held-out cases, and a student `vit`."""
    plain_vit(folder / "vit")
    return make_store(folder / "store.zarr", **{"train": (12,) * 6, "val": (8,) * 8} | options)


def base_values(folder: Path, **values: Any) -> dict[str, Any]:
    """Options of `train-student` for the student of `study_store`: one epoch of a few steps on a CPU."""
    base = {"student": f"local-dir:{folder / 'vit'}", "weights": "scratch", "epochs": 1, "batch_size": 12, "lr": 1e-4}
    return base | {"device": "cpu", "workers": 2} | values


def ablate_once(folder: Path, out: Path, stores: list[Path] | None = None, /, **options: Any) -> Ablation:
    """Call the stage; options of `train-student` are those of `base_values`, unless `options["base"]` has others."""
    base = base_values(folder, **options.pop("base", {}))
    record = {"stores": ["store.zarr"]}
    return ablate(stores or [folder / "store.zarr"], out, AblateConfig(**options), base, record)


def curve_once(folder: Path, out: Path, /, **options: Any) -> LearningCurve:
    """Call the stage, likewise."""
    base = base_values(folder, **options.pop("base", {}))
    return curve(folder / "store.zarr", out, CurveConfig(**options), base, {"store": ["store.zarr"]})


def study_tables(out: Path) -> dict[str, bytes]:
    """What a study says: bytes by name."""
    return {
        name: (out / name).read_bytes() for name in ("table.csv", "pairs.csv", "figure.png") if (out / name).exists()
    }
