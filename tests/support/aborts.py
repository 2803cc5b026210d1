"""A stand-in for damage that ends the process within OpenSlide's library: one place of one slide aborts when read."""

from pathlib import Path

HOOK = """
import os
import openslide

NAME, LEFT, TOP = {name!r}, {left}, {top}
read_region = openslide.OpenSlide.read_region

def read_or_abort(self, location, level, size):
    (x, y), (w, h) = location, size
    if os.path.basename(self._filename) == NAME and level == 0 and x <= LEFT < x + w and y <= TOP < y + h:
        os.abort()
    return read_region(self, location, level, size)

open_slide = openslide.OpenSlide.__init__

def open_named(self, filename):
    self._filename = os.fspath(filename)
    open_slide(self, filename)

openslide.OpenSlide.read_region = read_or_abort
openslide.OpenSlide.__init__ = open_named
"""


def aborting_at(folder: Path, name: str, left: int, top: int) -> Path:
    """A folder for PYTHONPATH, with `sitecustomize.py`, whose processes call abort() when they read a place of the
    slide file `name`: the pixel (left, top) of level 0. A library that finds its memory damaged does so.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(name=name, left=left, top=top))
    return folder
