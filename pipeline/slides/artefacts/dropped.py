"""A contact sheet of the patches that a plan lacks because of its rules, so that a person can judge them in a minute.

Shown are patches that a plan would have if a rule, or the rules together, had not been there: what the finder takes for
tissue without them. So of a scanner's frame the sheet has what is beside it, and neither black nor glass. Patches are
chosen by a hash of slide and place, evenly over each slide and over slides: the same for any number of workers and any
order of slides, and without regard to what they show.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from operator import attrgetter, itemgetter
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.base.errors import PatchError, SlideError
from pipeline.disk.files import write_bytes
from pipeline.report.letters import font_for
from pipeline.slides.artefacts.rules import DROPPING, Rule
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import reason_of
from pipeline.slides.tissue_grid import TissueGrid, dropped_patches

DROPPED_SHEET = "dropped-patches.jpg"
"""Name in the folder of overlays. No slide's picture has it: these end in .png."""
MOST_PATCHES = 48
"""On a sheet. Our choice: a person looks at one a second."""
PARTS = 8
"""Into which a slide is divided along each side, so that one stroke of a pen is not all of its sheet. Our choice."""
COLUMNS = 8
CELL_PX, FRAME_PX, TEXT_PX, GAP_PX, MARGIN_PX = 148, 4, 34, 8, 16
HEADER_PX, LINE_PX = 60, 20
"""Height of the title with one line of the legend, and of each further line."""
NAME_INK, PLACE_INK = (25, 25, 25), (110, 110, 110)
QUALITY = 90
"""Of the JPEG. Our choice: blocks are not seen."""


@dataclass(frozen=True)
class DroppedPatch:
    """A patch that a rule dropped, and how to read it again.

    Attributes:
        slide_id: its slide.
        path, manifest_mpp, mpp_overrides: how that is opened.
        geometry: how the patch is read.
        corner_l0_px: (x, y) of its top left corner in level 0.
        rule: the rule that took most of it.
        turn: how many patches of its slide and rule are shown before it.
    """

    slide_id: str
    path: Path
    manifest_mpp: float | None
    mpp_overrides: bool
    geometry: PatchGeometry
    corner_l0_px: tuple[int, int]
    rule: Rule
    turn: int = 0

    @property
    def rank(self) -> str:
        """Its place in the draw."""
        x, y = self.corner_l0_px
        return hashlib.sha256(f"{self.slide_id}\n{x}\n{y}".encode()).hexdigest()


def choose_dropped(
    slide: Slide, slide_id: str, grid: TissueGrid, manifest_mpp: float | None, mpp_overrides: bool
) -> tuple[DroppedPatch, ...]:
    """The dropped patches of a slide that may come onto the sheet, by rule, in the order in which they are shown."""
    corners, reasons = dropped_patches(grid)
    chosen: list[DroppedPatch] = []
    for rule in DROPPING:
        of_rule = [
            DroppedPatch(slide_id, slide.path, manifest_mpp, mpp_overrides, grid.geometry, (x, y), rule)
            for x, y in corners[reasons == reason_of(rule.name)].tolist()
        ]
        ordered = evenly_over(slide.info.size_l0_px, of_rule)[:MOST_PATCHES]
        chosen += [replace(patch, turn=turn) for turn, patch in enumerate(ordered)]
    return tuple(chosen)


def evenly_over(size_l0_px: tuple[int, int], patches: Iterable[DroppedPatch]) -> list[DroppedPatch]:
    """Patches of a slide of that size: the first of each of its parts by hash, then the second of each, and so on; of
    one round by hash.
    """
    width, height = size_l0_px
    seen: Counter[tuple[int, int]] = Counter()
    rounds: list[tuple[int, str, DroppedPatch]] = []
    for patch in sorted(patches, key=lambda patch: patch.rank):
        x, y = patch.corner_l0_px
        part = x * PARTS // width, y * PARTS // height
        rounds.append((seen[part], patch.rank, patch))
        seen[part] += 1
    return [patch for *_, patch in sorted(rounds, key=itemgetter(0, 1))]


def draw_dropped(dropped: Iterable[DroppedPatch], folder: Path) -> None:
    """Write the sheet of a cohort into a folder; nothing if no patch was dropped. A patch that cannot be read is grey.

    Raises:
        OSError: it cannot be written.
    """
    patches = list(dropped)
    chosen = for_sheet(patches)
    if not chosen:
        return
    rows = -(-len(chosen) // COLUMNS)
    width = 2 * MARGIN_PX + COLUMNS * (CELL_PX + GAP_PX) - GAP_PX
    font, small = font_for([], 18), font_for((patch.slide_id for patch in chosen), 13)
    counts = Counter(patch.rule for patch in chosen)
    legend = {rule: f"{rule.name}: {counts[rule]} shown" for rule in DROPPING if rule in counts}
    places = places_in_legend([int(small.getlength(text)) for text in legend.values()], width)
    header_px = HEADER_PX + LINE_PX * places[-1][1]
    page = Image.new("RGB", (width, 2 * MARGIN_PX + header_px + rows * (CELL_PX + TEXT_PX + GAP_PX)), "white")
    draw = ImageDraw.Draw(page)
    title = "Patches that rules dropped: would you keep any? --skip-rule NAME turns a rule off"
    draw.text((MARGIN_PX, MARGIN_PX), title, fill=NAME_INK, font=font)
    for (rule, text), (x, line) in zip(legend.items(), places, strict=True):
        y = MARGIN_PX + 32 + LINE_PX * line
        draw.rectangle((x, y, x + 14, y + 14), fill=rule.colour)
        draw.text((x + 22, y - 1), text, fill=NAME_INK, font=small)
    for number, patch in enumerate(chosen):
        row, column = divmod(number, COLUMNS)
        left = MARGIN_PX + column * (CELL_PX + GAP_PX)
        top = MARGIN_PX + header_px + row * (CELL_PX + TEXT_PX + GAP_PX)
        draw.rectangle((left, top, left + CELL_PX - 1, top + CELL_PX - 1), fill=patch.rule.colour)
        page.paste(_read_small(patch), (left + FRAME_PX, top + FRAME_PX))
        place = "{}, {}".format(*patch.corner_l0_px)
        for line, (text, colour) in enumerate(
            ((patch.slide_id, NAME_INK), (f"{patch.rule.name}  at {place}", PLACE_INK))
        ):
            draw.text((left, top + CELL_PX + 2 + 15 * line), _fitting(text, draw, small), fill=colour, font=small)
    buffer = BytesIO()
    page.save(buffer, "JPEG", quality=QUALITY)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / DROPPED_SHEET, buffer.getvalue())


def places_in_legend(lengths_px: Sequence[int], width_px: int) -> list[tuple[int, int]]:
    """Where entries of the legend begin whose texts are so long: (left edge, line) of each, none beyond the margin of a
    page so wide.
    """
    places, left, line = [], MARGIN_PX, 0
    for length in lengths_px:
        if left > MARGIN_PX and left + 22 + length > width_px - MARGIN_PX:
            left, line = MARGIN_PX, line + 1
        places.append((left, line))
        left += length + 44
    return places


def for_sheet(patches: Sequence[DroppedPatch]) -> list[DroppedPatch]:
    """At most `MOST_PATCHES` of the patches, by rule: of each rule as many as of the others, as far as it has them; of
    a rule the first of each slide, then the second of each.
    """
    order = attrgetter("turn", "rank", "slide_id")
    by_rule = [sorted((patch for patch in patches if patch.rule is rule), key=order) for rule in DROPPING]
    rounds = [[of_rule[turn] for of_rule in by_rule if turn < len(of_rule)] for turn in range(MOST_PATCHES)]
    taken = [patch for of_turn in rounds for patch in of_turn][:MOST_PATCHES]
    return [patch for rule in DROPPING for patch in taken if patch.rule is rule]


def _read_small(patch: DroppedPatch) -> Image.Image:
    """The patch at the size of a cell."""
    side = CELL_PX - 2 * FRAME_PX
    try:
        slide = Slide(patch.path, patch.manifest_mpp, mpp_overrides=patch.mpp_overrides)
        pixels = slide.read_patch(*patch.corner_l0_px, patch.geometry)
    except (SlideError, PatchError):
        return Image.new("RGB", (side, side), PLACE_INK)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, cut to the width of a cell."""
    while draw.textlength(text, font) > CELL_PX and len(text) > 1:
        text = text.removesuffix("\u2026")[:-1] + "\u2026"
    return text
