"""`g2l embed` in the processes that help the first one (`torchrun`): they take slides until all are done."""

from dataclasses import replace
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.errors import ConfigError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.config.tools import EmbedConfig
from pipeline.disk.at_hand import noted
from pipeline.features.folder import EmbedFolder
from pipeline.slides.staging.ahead import Staging
from stages.embed import build_embedder, embed_claimed, finished_slides, output_place, what_makes
from stages.embed_inputs import choose_dtype, continued_grid, find_model, plan_grid, read_slides
from stages.many.slide_work import SlideWork, slides_hash, written_since


def help_embed(group: LaunchedGroup, model: str, source: Path, out: Path, config: EmbedConfig) -> None:
    """Wait for the leader's call, and embed slides until all are done.

    Raises:
        G2LError: the leader has failed; or this machine's slides, model or device are not the leader's.
    """
    with group.helping() as calls:
        call = next(calls, None)
        if call is None:
            return
        manifest = read_slides(source, config.slides_root, config.stage_folder)
        if slides_hash(manifest) != call["slides"]:
            raise ConfigError(f"{source}: other slides are here than the first process finds. Do all see one folder?")
        named = find_model(model, config)
        settings = call["made_by"]["settings"]
        grid = continued_grid(plan_grid(named, config), config, settings)
        dtype = choose_dtype(config.layout, config.dtype)
        place = output_place(out, named, config, grid)
        embedder = build_embedder(named, config, dtype, {"batch_size": call["batch_size"]})
        made_by = what_makes(embedder, place, config.deciding())
        EmbedFolder.require_same(out, call["made_by"], made_by)
        embedder = replace(embedder, precision=call["precision"])
        before = set(call["finished"])  # the others have been finished since the leader's start
        marks = {name: mark for name, mark in finished_slides(manifest, place, made_by).items() if name in before}
        staging = Staging(config.stage_folder, tell=say)
        check, retry, written = config.check_files, config.retry_failures, written_since(manifest, place, marks)
        work = SlideWork(manifest, place, embedder, marks, made_by, check, retry, staging, written)
        with noted(out, (manifest.slide_path(row) for row in manifest.rows), call["crashing"]):
            embed_claimed(group, work)
