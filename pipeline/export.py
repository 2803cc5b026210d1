"""Where the cards of students that were exported before the rooms find `load_projector`; nothing else is here."""

from pipeline.student.folder import load_projector as load_projector
