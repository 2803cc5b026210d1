"""Where the cards of exported students, old and new, find `load_projector`; nothing else is here."""

from pipeline.student.folder import load_projector as load_projector
