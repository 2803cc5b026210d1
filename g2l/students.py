"""Load a student: its model, the transform of its patches, and the projector into its teacher's space."""

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from g2l.guest import as_guest, given_path
from pipeline.base.console import say
from pipeline.base.errors import ConfigError, EncoderError, first_line
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED, is_run
from pipeline.encoders.build import Encoder, build_encoder
from pipeline.encoders.model_config import CONFIG_FILE, input_side
from pipeline.projector import Projector
from pipeline.student.exported import is_student
from pipeline.student.folder import changed_since_export, load_projector, stated_mpp


class StudentModel(nn.Module):
    """A student as a module, in evaluation mode on the CPU; its parameters can be trained further.

    forward: float (B, 3, P, P), normalised by the `PatchTransform` -> (B, D), the embedding. Raises EncoderError for
    what is no such batch; of patches of another side if the architecture cannot take them (a CNN can, as in timm).

    Attributes:
        encoder: `encoder.model` is timm's model.
        width: dimension D of the embedding.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.width = encoder, encoder.spec.width

    def forward(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
            raise EncoderError(
                f"{_what(images)}: the model takes a batch, float (B, 3, P, P), normalised by the transform; of one "
                "patch transform(patch)[None]"
            )
        if not images.numel():
            raise EncoderError(f"{_what(images)}: a batch without patches has no embeddings")
        if not images.is_floating_point():
            raise EncoderError(f"{_what(images)}: normalise the patches first, transform(patches)")
        try:
            return self.encoder.embed(images)
        except (AssertionError, RuntimeError) as error:
            if problem := self._misfit(images):
                raise EncoderError(f"{_what(images)}: {problem} ({first_line(error)})") from None
            raise

    def _misfit(self, images: Tensor) -> str:
        """Why a batch is not of this student's side or type; "" if it is, and something else failed."""
        side, held = self.encoder.spec.patch_px, next(self.parameters()).dtype
        if tuple(images.shape[-2:]) != (side, side):
            return f"the student takes patches of {side} by {side} pixels"
        return f"the student's weights are {held}" if images.dtype != held else ""


def _what(value: Any) -> str:
    """What a caller gave, for a message."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{value!r:.80}"


class PatchTransform:
    """From a patch to the input of a student: values to 0..1, less the mean, by the deviation. Neither scales nor cuts.

    Takes a PIL image, a uint8 array (P, P, 3), or a uint8 tensor (3, P, P) or (B, 3, P, P), as datasets of
    `open_store` give it; returns float32 (3, P, P) or (B, 3, P, P). Picklable.

    Attributes:
        mean, std: of RGB in 0..1.
        patch_px: side P.
        mpp: um/px that the student was trained at; 0 if not known.
    """

    def __init__(
        self, mean: tuple[float, float, float], std: tuple[float, float, float], patch_px: int, mpp: float
    ) -> None:
        self.mean, self.std, self.patch_px, self.mpp = mean, std, patch_px, mpp

    def __call__(self, patch: Any) -> Tensor:
        """The input of a patch, or of a batch of patches.

        Raises:
            EncoderError: it is not RGB in 8 bits, or of another side than the student's, or a file's name.
        """
        if isinstance(patch, str | bytes | os.PathLike):
            raise EncoderError(f"{patch!r}: give the patch itself; PIL.Image.open({str(patch)!r}) opens a file")
        image: Any = patch
        if not isinstance(image, Tensor):
            pixels = np.asarray(image)
            if pixels.ndim == 3:
                pixels = pixels.transpose(2, 0, 1)
            image = torch.from_numpy(pixels.copy()) if pixels.dtype == np.uint8 else pixels
        right = (3, self.patch_px, self.patch_px)
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or tuple(image.shape[-3:]) != right:
            given = f"a patch of {_what(image)}" if image.ndim else f"{_what(patch)} is no patch"
            raise EncoderError(
                f"{given}: the student takes RGB in 8 bits, uint8 "
                f"(3, {self.patch_px}, {self.patch_px}), or an image of that side"
            )
        mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (self.mean, self.std))
        normalised: Tensor = image.float().div(255).sub(mean).div(std)
        return normalised

    def __repr__(self) -> str:
        return f"PatchTransform(mean={self.mean}, std={self.std}, patch_px={self.patch_px}, mpp={self.mpp})"


class LoadedStudent(NamedTuple):
    """What `load_student` gives.

    Attributes:
        model: normalised patches (B, 3, P, P) -> embeddings (B, D).
        transform: a patch -> its normalised input (3, P, P).
        projector: `projector.as_teacher(embeddings)`: (B, D) -> (B, T), in place of the teacher's embeddings; `None`
            for a model of timm's that is no student.
    """

    model: StudentModel
    transform: PatchTransform
    projector: Projector | None


def load_student(path: str | os.PathLike[str], *, teacher: str | None = None) -> LoadedStudent:
    """Load an exported student, or that of a finished run.

    Args:
        path: folder that `g2l export` or `g2l train-student` wrote.
        teacher: whose projector, for a student of several teachers; `None` for the first.

    Raises:
        ConfigError: there is no student in the folder, or it is no student and a teacher is asked for.
        EncoderError: it is damaged, or has learnt from no such teacher.
    """
    folder = given_path(path).expanduser()
    folder = folder / "student" if is_run(folder) else folder
    if not (folder / CONFIG_FILE).is_file():
        hint = "training is not finished" if is_run(folder.parent) else "it is neither an exported student nor a run"
        raise ConfigError(f"load_student: no student in {path}: {hint}")
    if teacher is not None and not is_student(folder):
        raise ConfigError(f"teacher={teacher!r}: {path} is a model of timm's that has learnt from no teacher")
    with as_guest(computes=True):
        built = build_encoder(f"{FOLDER_PREFIX}{folder}", PRETRAINED, input_side(folder))
        projector = load_projector(folder, teacher) if is_student(folder) else None
        if is_student(folder) and (warning := changed_since_export(folder, built)):
            say(warning)
        mpp = stated_mpp(folder) or 0.0
    spec = built.spec
    return LoadedStudent(
        StudentModel(built.module).eval(), PatchTransform(spec.mean, spec.std, spec.patch_px, mpp), projector
    )
