"""How each adapter of an exported student is used, in words for its card."""

from pipeline.student.adapters import CRC_PATCH_UM

TWENTY_X_MPP = 0.5
"""Resolution that TRIDENT calls 20x, um/px; it counts in magnifications."""
SAME_RESOLUTION = 0.02
"""Resolutions that differ by less are the same. Our choice: scanners name 0.25 what is 0.2527."""

USE = """## Benchmarks and tools of others

`adapters/` holds a short file for each; it reads the student from the folder above it. `STUDENT` is this folder's path.

**kaiko-eva** (tissue classes of CRC, with a linear head; other data sets by changing the file):

```bash
PYTHONPATH=STUDENT/adapters DOWNLOAD_DATA=true eva predict_fit --config STUDENT/adapters/eva.yaml
```

**PathoROB**: in `load_model` of its `pathorob/models/__init__.py`, add

```python
elif model_name == "student":
    from pathorob_model import StudentModelWrapper as model_class
```

and run `PYTHONPATH=STUDENT/adapters python3 -m pathorob.features.extract_features --model_name student`.

**plismbench**: in `FeatureExtractorsEnum` of its `plismbench/models/__init__.py`, add `STUDENT = "student"`, and in its
`init`, before `else`,

```python
elif self is self.STUDENT:
    from plismbench_extractor import StudentExtractor
    return StudentExtractor(device=device, mixed_precision=mixed_precision, **kwargs)
```

and run `PYTHONPATH=STUDENT/adapters plismbench extract --extractor student ...`.

**TRIDENT**: patches of {px} px at {mpp} um/px, then, with `PYTHONPATH=STUDENT/adapters`,

```python
from trident import Processor
from trident_encoder import build_encoder

processor = Processor(job_dir="trident_processed", wsi_source="wsis")
processor.run_patch_feature_extraction_job(
    coords_dir="{magnification}_{px}px_0px_overlap", patch_encoder=build_encoder(), device="cuda:0"
)
```
"""


def adapters_section(patch_px: int, mpp: float) -> str:
    """How each adapter is used, for the card; `mpp` is 0 where it is not known."""
    resolution = f"{mpp:g}" if mpp else "the card's"
    times = TWENTY_X_MPP * 20 / mpp if mpp else 20.0
    notes = []
    if mpp and abs(CRC_PATCH_UM / patch_px / mpp - 1) > SAME_RESOLUTION:
        notes.append(
            f"eva resizes CRC's patches of {CRC_PATCH_UM:g} um to {patch_px} px, {CRC_PATCH_UM / patch_px:.3g} um/px. "
            f"The student was trained at {mpp:g} um/px: such scores are of another magnification than its own."
        )
    if not times.is_integer():
        notes.append(
            f"TRIDENT cuts patches at whole magnifications, and {mpp:g} um/px is {times:.3g}x: let `g2l embed --layout "
            "trident` write its files instead."
        )
    use = USE.format(px=patch_px, mpp=resolution, magnification=f"{times:g}x")
    return "\n\n".join([use.rstrip("\n"), *notes]) + "\n"
