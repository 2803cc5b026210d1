"""Adapters: short files in an export by which benchmarks and tools of others run the student.

eva_student.py, eva.yaml      kaiko-eva 0.4.5
pathorob_model.py             PathoROB's model wrapper
plismbench_extractor.py       plismbench's extractor
trident_encoder.py            TRIDENT's custom encoder

Each needs timm, safetensors, torch and its tool, nothing of this project, and finds the student from its own place: the
folder above `adapters/`. It builds the architecture by its name and loads the weights itself, so that it does not
depend on how a version of timm reads a folder (before 1.0.16 not at all; decision 0037). The interfaces were read in
2026-11 (decision 0019). Left out: tools that take a timm name as it is.
"""

from pathlib import Path

from pipeline.disk.files import write_text
from pipeline.encoders.table import EmbeddingRule, EncoderSpec

ADAPTERS_FOLDER = "adapters"
CRC_PATCH_UM = 224 * 0.5
"""Side of a patch of NCT-CRC-HE, um (Kather et al., 2019)."""

FORWARD: dict[EmbeddingRule, str] = {
    "pooled": "return self.model(images)",
    "cls": "return self.model(images)",  # the export's own output is the class token
    "cls+mean": (
        "tokens = self.model.forward_features(images)\n"
        "        patches = tokens[:, self.model.num_prefix_tokens :]\n"
        "        return torch.cat([tokens[:, 0], patches.mean(1)], dim=1)"
    ),
}
"""How the module of an adapter takes the embedding, by the rule."""

STUDENT = '''
STUDENT = Path(__file__).resolve().parent.parent
"""The exported student: the folder above this file's."""


class Student(torch.nn.Module):
    """float32 (B, 3, {px}, {px}), normalised by `transform`, -> embedding (B, {width}).

    `transform` takes a PIL image, RGB, at the resolution that the student's card names.
    """

    def __init__(self) -> None:
        super().__init__()
        config = json.loads((STUDENT / "config.json").read_text())
        overlay, arguments = config["pretrained_cfg"], config["model_args"]
        self.model = timm.create_model(config["architecture"], pretrained_cfg_overlay=overlay, **arguments)
        self.model.load_state_dict(safetensors.torch.load_file(STUDENT / "model.safetensors"))
        self.transform = timm.data.create_transform(**timm.data.resolve_model_data_config(self.model))
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        {forward}
'''

EVA = '''"""The student for kaiko-eva; `eva.yaml` beside this file names it."""

import json
from pathlib import Path

import safetensors.torch
import timm
import torch

{student}

def load_student() -> torch.nn.Module:
    """What `eva.models.ModelFromFunction` calls."""
    return Student()
'''

PATHOROB = '''"""The student as a model of PathoROB (github.com/bifold-pathomics/PathoROB)."""

import json
from pathlib import Path

import safetensors.torch
import timm
import torch
from pathorob.models.utils import ModelWrapper

{student}

class StudentModelWrapper(ModelWrapper):
    """For `load_model` in pathorob/models/__init__.py."""

    def __init__(self) -> None:
        self.student = Student()

    def get_model(self) -> torch.nn.Module:
        return self.student

    def get_preprocess(self):
        return self.student.transform

    def extract(self, data: torch.Tensor) -> torch.Tensor:
        return self.student(data)
'''

PLISMBENCH = '''"""The student as an extractor of plismbench (github.com/owkin/plism-benchmark)."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from plismbench.models.extractor import Extractor
from plismbench.models.utils import DEFAULT_DEVICE, prepare_module

{student}

def transform_tile(transform, tile: np.ndarray) -> torch.Tensor:
    """A tile as plismbench reads it, uint8 (P, P, 3) RGB, through a transform that takes PIL images."""
    return transform(Image.fromarray(np.asarray(tile)))


class StudentExtractor(Extractor):
    """For `FeatureExtractorsEnum` in plismbench/models/__init__.py.

    `device` is the number of a GPU, a list of them, -1 for the CPU, or None for all GPUs.
    """

    def __init__(self, device=DEFAULT_DEVICE, mixed_precision: bool = False) -> None:
        super().__init__()
        student = Student()
        self.transform = partial(transform_tile, student.transform)
        self.feature_extractor, self.device = prepare_module(student, device, mixed_precision)

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        return self.feature_extractor(images.to(self.device)).float().cpu().numpy()
'''

TRIDENT = '''"""The student as a patch encoder of TRIDENT (github.com/mahmoodlab/TRIDENT)."""

import json
from pathlib import Path

import safetensors.torch
import timm
import torch
from trident.patch_encoder_models import CustomInferenceEncoder

{student}

def build_encoder(precision: torch.dtype = torch.float32) -> CustomInferenceEncoder:
    """For `Processor.run_patch_feature_extraction_job`. Features go into `features_<name of the student's folder>`.

    `torch.bfloat16` is faster on a GPU, and less exact.
    """
    student = Student()
    return CustomInferenceEncoder(STUDENT.name, student, student.transform, precision)
'''

EVA_CONFIG = """# The student on CRC (NCT-CRC-HE: 9 tissue classes, 224 px at 0.5 um/px, CC BY 4.0) in kaiko-eva 0.4.5:
# embeddings once, then a linear head, 5 times. For another data set of eva, change paths, classes and steps.
# CRC's patches are resized to the student's {px} px, which are then of {crc_mpp:.4g} um/px.
---
trainer:
  class_path: eva.Trainer
  init_args:
    n_runs: ${{oc.env:N_RUNS, 5}}
    default_root_dir: &OUTPUT ${{oc.env:OUTPUT_ROOT, logs/student/crc}}
    max_steps: &STEPS ${{oc.env:MAX_STEPS, 12500}}
    callbacks:
      - class_path: lightning.pytorch.callbacks.ModelCheckpoint
        init_args:
          filename: best
          monitor: val/MulticlassAccuracy
          mode: max
      - class_path: lightning.pytorch.callbacks.EarlyStopping
        init_args:
          monitor: val/MulticlassAccuracy
          mode: max
          min_delta: 0
          patience: 24
      - class_path: eva.callbacks.ClassificationEmbeddingsWriter
        init_args:
          output_dir: &EMBEDDINGS ${{oc.env:EMBEDDINGS_ROOT, data/embeddings/student/crc}}
          dataloader_idx_map:
            0: train
            1: val
          backbone:
            class_path: eva.models.ModelFromFunction
            init_args:
              path: eva_student.load_student
          overwrite: false
    logger:
      - class_path: lightning.pytorch.loggers.CSVLogger
        init_args:
          save_dir: *OUTPUT
          name: ""
model:
  class_path: eva.HeadModule
  init_args:
    head:
      class_path: torch.nn.Linear
      init_args:
        in_features: {width}
        out_features: &CLASSES 9
    criterion: torch.nn.CrossEntropyLoss
    optimizer:
      class_path: torch.optim.SGD
      init_args:
        lr: 0.01
        momentum: 0.9
        weight_decay: 0.0
    lr_scheduler:
      class_path: torch.optim.lr_scheduler.CosineAnnealingLR
      init_args:
        T_max: *STEPS
        eta_min: 0.0
    metrics:
      common:
        - class_path: eva.metrics.AverageLoss
        - class_path: eva.metrics.MulticlassClassificationMetrics
          init_args:
            num_classes: *CLASSES
data:
  class_path: eva.DataModule
  init_args:
    datasets:
      train:
        class_path: eva.datasets.EmbeddingsClassificationDataset
        init_args: &EMBEDDED
          root: *EMBEDDINGS
          manifest_file: manifest.csv
          split: train
      val:
        class_path: eva.datasets.EmbeddingsClassificationDataset
        init_args:
          <<: *EMBEDDED
          split: val
      predict:
        - class_path: eva.vision.datasets.CRC
          init_args: &IMAGES
            root: ${{oc.env:DATA_ROOT, data/crc}}
            split: train
            download: ${{oc.env:DOWNLOAD_DATA, false}}
            transforms:
              class_path: eva.vision.data.transforms.common.ResizeAndCrop
              init_args:
                size: {px}
                mean: {mean}
                std: {std}
        - class_path: eva.vision.datasets.CRC
          init_args:
            <<: *IMAGES
            split: val
    dataloaders:
      train:
        batch_size: &BATCH ${{oc.env:BATCH_SIZE, 4096}}
        num_workers: &WORKERS ${{oc.env:N_DATA_WORKERS, 4}}
        shuffle: true
      val:
        batch_size: *BATCH
        num_workers: *WORKERS
      predict:
        batch_size: ${{oc.env:PREDICT_BATCH_SIZE, 64}}
        num_workers: *WORKERS
"""

TEMPLATES = {
    "eva.yaml": EVA_CONFIG,
    "eva_student.py": EVA,
    "pathorob_model.py": PATHOROB,
    "plismbench_extractor.py": PLISMBENCH,
    "trident_encoder.py": TRIDENT,
}
"""Adapters by file name."""


def adapter_texts(spec: EncoderSpec) -> dict[str, str]:
    """The text of every adapter for a student of this spec, by file name."""
    student = STUDENT.strip("\n").format(px=spec.patch_px, width=spec.width, forward=FORWARD[spec.embedding])
    values = {
        "student": f"{student}\n",
        "width": spec.width,
        "px": spec.patch_px,
        "crc_mpp": CRC_PATCH_UM / spec.patch_px,
        "mean": list(spec.mean),
        "std": list(spec.std),
    }
    return {name: template.format(**values) for name, template in TEMPLATES.items()}


def write_adapters(folder: Path, spec: EncoderSpec) -> None:
    """Write the adapters below an exported student's folder.

    Raises:
        OSError: they cannot be written.
    """
    place = folder / ADAPTERS_FOLDER
    place.mkdir()
    for name, text in adapter_texts(spec).items():
        write_text(place / name, text)
