"""The parts of G2L, each of one concern; `stages` puts them in order."""
