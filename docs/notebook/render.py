"""Write `docs/notebook.md`, the executed notebook as a page, and its pictures. A test sees that the page has the
notebook's cells as they are: run this again when `demo.py` has changed.

    G2L_KEEP_NOTEBOOK=/tmp/demo.ipynb python -m pytest tests/g2l/test_notebook.py
    python docs/notebook/render.py /tmp/demo.ipynb
"""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
from PIL import Image

DOCS = Path(__file__).resolve().parents[1]
HEAD = "<!-- Written by docs/notebook/render.py from docs/notebook/demo.py; change that file. -->\n\n"
PICTURES = (
    "The demo's slide with the patches that the plan chose",
    "Patches of the store",
    "Loss and held-out figures of the run",
    "First principal component of teacher and student over the held-out strip",
    "Queries with their nearest patches by teacher and by student",
)
MOST_LINES = 20
"""Lines of what a cell prints that are shown."""
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def page_of(notebook: nbformat.NotebookNode, images: Path) -> str:
    """The page; writes each picture to `images`."""
    parts, number = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"notebook_{number + 1}.jpg"
                picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
                picture.save(images / name, quality=88)
                parts.append(f"![{PICTURES[number]}](images/{name})")
                number += 1
            elif text := ESCAPES.sub("", output.get("text", "") or data.get("text/plain", "")).strip():
                text = text.replace(str(Path.home()), "~")
                lines = text.splitlines()
                shown = [*lines[:MOST_LINES], *(["..."] if len(lines) > MOST_LINES else [])]
                parts.append("```text\n" + "\n".join(shown) + "\n```")
    return HEAD + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    executed = nbformat.read(sys.argv[1], as_version=4)
    (DOCS / "notebook.md").write_text(page_of(executed, DOCS / "images"))
