"""Sheets of patches: nearest neighbours under several encoders, side by side; and the best and worst of a model."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.disk.files import write_bytes
from pipeline.report.letters import font_for

PATCH_PX, GAP_PX, HEADER_PX, MARGIN_PX = 92, 4, 62, 16
INK_RGB, QUIET_RGB, FRAME_RGB = (25, 25, 25), (110, 110, 110), (20, 140, 70)


def draw_neighbours(
    queries: list[NDArray[np.uint8]],
    columns: dict[str, list[list[tuple[NDArray[np.uint8], bool]]]],
    title: str,
    path: Path,
) -> None:
    """Write the sheet (PNG): a row a query; for each encoder its nearest patches, nearest first.

    Args:
        queries: uint8 (P, P, 3) patches.
        columns: by encoder name, for each query its neighbours and whether the teacher has them, too; those get a
        frame.
    """
    cell = PATCH_PX + GAP_PX
    counts = [len(rows[0]) for rows in columns.values()]
    block_gap = 26
    width = 2 * MARGIN_PX + PATCH_PX + sum(block_gap + c * cell - GAP_PX for c in counts)
    height = MARGIN_PX + HEADER_PX + len(queries) * cell + MARGIN_PX
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    font, small = font_for([title], 17), font_for(columns, 14)
    draw.text((MARGIN_PX, MARGIN_PX), title, fill=INK_RGB, font=font)
    top = MARGIN_PX + HEADER_PX
    draw.text((MARGIN_PX, top - 22), "patch", fill=QUIET_RGB, font=small)
    for row, query in enumerate(queries):
        page.paste(_small(query), (MARGIN_PX, top + row * cell))
    x = MARGIN_PX + PATCH_PX
    for (name, rows), count in zip(columns.items(), counts, strict=True):
        x += block_gap
        draw.text((x, top - 22), name, fill=QUIET_RGB, font=small)
        for row, neighbours in enumerate(rows):
            for column, (patch, shared) in enumerate(neighbours):
                corner = (x + column * cell, top + row * cell)
                page.paste(_small(patch), corner)
                if shared:
                    draw.rectangle(
                        (*corner, corner[0] + PATCH_PX - 1, corner[1] + PATCH_PX - 1), outline=FRAME_RGB, width=4
                    )
        x += count * cell - GAP_PX
    _write(page, path)


def draw_best_and_worst(groups: dict[str, list[tuple[NDArray[np.uint8], str]]], title: str, path: Path) -> None:
    """Write the sheet (PNG): a row of patches a group.

    Args:
        groups: by the group's name, uint8 (P, P, 3) patches with a short text below each.
    """
    cell, text_px, name_px = PATCH_PX + GAP_PX, 22, 70
    count = max(len(patches) for patches in groups.values())
    width = 2 * MARGIN_PX + name_px + count * cell - GAP_PX
    height = 2 * MARGIN_PX + HEADER_PX // 2 + len(groups) * (PATCH_PX + text_px)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    words = [text for patches in groups.values() for _, text in patches]
    font, small = font_for([title], 17), font_for([*groups, *words], 14)
    draw.text((MARGIN_PX, MARGIN_PX), title, fill=INK_RGB, font=font)
    y = MARGIN_PX + HEADER_PX // 2
    for name, patches in groups.items():
        draw.text((MARGIN_PX, y + PATCH_PX // 2 - 8), name, fill=QUIET_RGB, font=small)
        for column, (patch, text) in enumerate(patches):
            x = MARGIN_PX + name_px + column * cell
            page.paste(_small(patch), (x, y))
            draw.text((x + PATCH_PX / 2, y + PATCH_PX + 2), text, fill=QUIET_RGB, font=small, anchor="ma")
        y += PATCH_PX + text_px
    _write(page, path)


def _write(page: Image.Image, path: Path) -> None:
    buffer = BytesIO()
    page.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _small(patch: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(patch).resize((PATCH_PX, PATCH_PX), Image.Resampling.LANCZOS)
