"""Import path of `load_projector` in the cards of exported students, old and new; holds nothing else."""

from pipeline.student.folder import load_projector as load_projector
