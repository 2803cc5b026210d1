"""The cost section of a report: how large each model is, how fast it runs beside the reference, what memory it takes.

A forward pass over patches in the device's memory is timed. Left out: reading slides and decoding images, which often
take longer but are the same for every model.
"""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.base.console import Progress
from pipeline.base.devices import describe_device
from pipeline.base.errors import first_line
from pipeline.evaluate.cost.measure import (
    CELL_SECONDS,
    LEAST_ROUNDS,
    CostRow,
    flops_per_patch,
    measure_cost,
    num_params,
)
from pipeline.report.content import Cell, Column, Exclusion, Interval, ReportModel, Score, Section, Table

KEY = "cost"
MIB = 2**20


def cost_section(
    models: Sequence[tuple[ReportModel, nn.Module, int]],
    reference: str,
    device: torch.device,
    *,
    batch_sizes: Sequence[int],
    precisions: Sequence[str],
    rounds: int,
) -> Section:
    """Measure all models; its times of a patch are those of the largest batch size and the first precision.

    Args:
        models: with the module, forward: uint8 (B, P, P, 3) -> (B, D), and the side of its patches, pixels.
        reference: label of the model that the others are compared with.
        batch_sizes: to time, ascending.
        precisions: to time, each once.
        rounds: of timing, each with every model once.
    """
    exclusions: list[Exclusion] = []
    size = _size_table(models, reference, exclusions)
    modules = {model.label: module for model, module, _ in models}
    sides = {model.label: patch_px for model, _, patch_px in models}
    with Progress("timing", len(precisions) * len(batch_sizes) * rounds, "rounds") as progress:
        rows = measure_cost(modules, sides, reference, batch_sizes, precisions, rounds, device, progress.step)
    exclusions += [
        Exclusion(f"{row.label}, {row.precision}, batches of {row.batch_size}", row.note) for row in rows if row.note
    ]
    largest = [row for row in rows if row.batch_size == batch_sizes[-1] and row.precision == precisions[0]]
    return Section(
        key=KEY,
        title="Cost",
        what=f"What one forward pass costs on this machine ({describe_device(device)}). All models are timed in turn "
        f"within each round, in another order each round, so that drift of the machine cancels in the ratios. Times "
        "are of this machine and of this run: ratios carry over to similar machines, milliseconds do not. Patches lie "
        "in the device's memory; reading slides and decoding images are not included.",
        basis={"models": len(models), "rounds of timing": max((row.rounds for row in rows), default=0)},
        tables=[size, _speed_table(rows, reference)],
        scores=_scores(largest, reference),
        settings={
            "batch_sizes": list(batch_sizes),
            "precisions": list(precisions),
            "rounds": rounds,
            "device": describe_device(device),
            "patch_px": sides,
        },
        exclusions=exclusions,
        notes=_notes(rows, rounds),
        ms_per_patch={row.label: row.ms_per_patch for row in largest if row.ms_per_patch is not None},
    )


def _size_table(
    models: Sequence[tuple[ReportModel, nn.Module, int]], reference: str, exclusions: list[Exclusion]
) -> Table:
    """Parameters and FLOPs; a model whose FLOPs cannot be counted is added to `exclusions`."""
    params = {model.label: num_params(module) for model, module, _ in models}
    flops: dict[str, int | None] = {}
    for model, module, patch_px in models:
        try:
            flops[model.label] = flops_per_patch(module, patch_px)
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            flops[model.label] = None
            exclusions.append(Exclusion(f"{model.label}, FLOPs", f"not countable: {first_line(error)}"))
    rows: list[list[Cell]] = []
    for model, _, patch_px in models:
        num_flops = flops[model.label]
        share = _ratio(params[model.label], params.get(reference))
        flops_share = _ratio(num_flops, flops.get(reference))
        giga = None if num_flops is None else num_flops / 1e9
        rows.append([model.label, model.role or None, patch_px, params[model.label], share, giga, flops_share])
    return Table(
        "Size",
        [
            Column("model"),
            Column("role", "Part that the model plays in the distillation, if any."),
            Column("patch, px", "Side of the square patch that the model takes."),
            Column("parameters", "Number of weights of the encoder; without the projector and without a classifier."),
            Column(
                "parameters, of the reference", f"Parameters as a share of {reference}'s.", digits=4, better="lower"
            ),
            Column(
                "GFLOPs a patch",
                "Arithmetic of one patch, in 10^9 floating-point operations, a multiply-add counted as two; matrix "
                "products, convolutions and attention, not the element-wise rest.",
                digits=2,
            ),
            Column("GFLOPs, of the reference", f"GFLOPs as a share of {reference}'s.", digits=4, better="lower"),
        ],
        rows,
    )


def _speed_table(rows: Sequence[CostRow], reference: str) -> Table:
    cells: list[list[Cell]] = []
    for row in rows:
        memory = None if row.peak_bytes is None else row.peak_bytes / MIB
        cells.append(
            [
                row.label,
                row.precision,
                row.batch_size,
                row.ms_per_patch,
                row.patches_per_second,
                row.times_faster,
                memory,
                row.note,
            ]
        )
    if not any(row.note for row in rows):
        cells = [row_cells[:-1] for row_cells in cells]
    columns = [
        Column("model"),
        Column("precision", "Arithmetic of the pass; weights are kept in float32."),
        Column("batch", "Patches a pass."),
        Column("ms a patch", "Milliseconds of a pass divided by its patches: median over rounds.", digits=2),
        Column("patches a second", "The same the other way round.", digits=1),
        Column(
            f"times faster than {reference}",
            "How many times faster than the reference at the same precision and batch: the median over rounds of the "
            "ratio within a round, with the least and the largest of all rounds.",
            digits=2,
        ),
        Column(
            "peak memory, MiB",
            "Weights, input and activations at the fullest moment of one pass: on a GPU as its allocator counts them, "
            "on a CPU the tensors that are alive at once.",
            digits=0,
        ),
        Column("note", "Why a figure is missing."),
    ]
    return Table("Speed and memory", columns[: len(cells[0])] if cells else columns, cells)


def _scores(rows: Sequence[CostRow], reference: str) -> list[Score]:
    """The headline: how many times faster, at the largest batch and the first precision."""
    values: dict[str, Interval] = {row.label: row.times_faster for row in rows if row.times_faster is not None}
    return [Score(f"times faster than {reference}", values, is_cost=True)] if values else []


def _notes(rows: Sequence[CostRow], rounds: int) -> list[str]:
    """What the reader must know of how this run went."""
    fewer = [row for row in rows if 0 < row.rounds < rounds]
    if not fewer:
        return []
    return [
        f"{len(fewer)} of {len(rows)} rows rest on fewer than {rounds} rounds: after {CELL_SECONDS:.0f} s of one "
        f"precision and batch size, and at least {LEAST_ROUNDS} rounds, timing goes on with the next."
    ]


def _ratio(value: int | None, of: int | None) -> float | None:
    """`value` / `of`, `None` if either is not known."""
    return None if value is None or not of else value / of
