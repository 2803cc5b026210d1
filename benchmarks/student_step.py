"""What a training step of stage two gains or loses by `--compile`, channels-last memory, and `--micro-batch`.

The same student, batch and loss in one process, in turn:
    step        `train_step` as it is by default: eager, channels last
    contiguous  the same with weights and patches in torch's default order, to see what channels last gives
    compiled    the same through torch.compile; compiling is not in the time
    parts       the whole batch in four parts (`--micro-batch`): a second forward pass, for less memory. Only students
                without batch normalisation
and a forward pass of the same model as a teacher:
    embedding   eager, in inference mode
    embedding, compiled

Memory is the peak of a step beyond weights, optimiser state and batch: the allocator's on a GPU, elsewhere the tensors
alive at once. The verdict is on `parts`: it may take 1.5 times the step, for a forward pass is about a third of it (our
choice). On a GPU, if there is one and --device does not say otherwise, else on the CPU.

With --large 1024 besides: one step of a batch of that size in parts of --batch-size rows, and its memory as a share of
that of a whole step of --batch-size rows. That is what `--micro-batch` promises: near 1, whatever the batch.
"""

import sys
from collections.abc import Callable
from time import perf_counter

import inputs
import machine
import numpy as np
import torch

from pipeline.base.console import table
from pipeline.base.loader import Batch
from pipeline.base.memory import peak_bytes_beyond
from pipeline.base.units import format_bytes
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import EncoderForward
from pipeline.training.optim import build_optimizer
from pipeline.training.step.batch_norm import batch_norms
from pipeline.training.step.compiled import compiled_pass
from pipeline.training.step.train_step import train_step

NEEDED, PARTS, TEACHER_WIDTH = 1.5, 4, 1536


class Step:
    """A training step of a student on a batch in memory."""

    def __init__(
        self, name: str, batch_size: int, how: str, device: torch.device, precision: str, micro_batch: int | None = None
    ) -> None:
        student = build_encoder(name, SCRATCH, inputs.PATCH_PX)
        module = student.module.to(device)
        in_training: Callable[[torch.Tensor], torch.Tensor] = module
        if how == "contiguous":
            module.to(memory_format=torch.contiguous_format)
            in_training = lambda patches: module.embed(module.normalise(patches).contiguous())  # noqa: E731
        elif how == "compiled":
            in_training = compiled_pass(module)
        (projector,) = build_projectors(student.spec.width, [TEACHER_WIDTH], 0)
        heads = (Head("teacher", projector.to(device)),)
        self.distillation = Distillation(student, heads, device, precision, in_training, micro_batch)
        self.optimizer = build_optimizer(self.distillation.modules(), 1e-4, 0.05)
        draw = np.random.default_rng(0)
        patches = torch.from_numpy(draw.integers(0, 256, (batch_size, inputs.PATCH_PX, inputs.PATCH_PX, 3), np.uint8))
        embeddings = draw.normal(size=(batch_size, TEACHER_WIDTH)).astype(np.float32)
        self.batch = Batch(range(batch_size), patches, list(embeddings))
        self.loss_of = build_loss("log-sum", 4.0)
        self.distillation.train()

    def __call__(self) -> None:
        train_step(self.distillation, self.batch, self.loss_of, self.optimizer, 1.0)
        inputs.finish(self.distillation.device)

    def peak_bytes(self) -> int:
        """Peak memory of a step; one has been made before, so that the optimiser has its state."""
        for parameter in self.distillation.parameters():
            parameter.grad = None
        state = [v for values in self.optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
        tensors = [t for module in self.distillation.modules() for t in (*module.parameters(), *module.buffers())]
        return peak_bytes_beyond([*tensors, *state, self.batch.pixels], self.distillation.device, self)


def embedding(name: str, batch_size: int, device: torch.device, precision: str, *, compiled: bool) -> machine.Part:
    """A forward pass of a teacher."""
    module = build_encoder(name, SCRATCH, inputs.PATCH_PX).module.to(device)
    patches = torch.zeros((batch_size, inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8, device=device)
    if compiled:
        module.compile(dynamic=False)  # in place
    forward = EncoderForward(module, device, precision)

    def embed() -> None:
        forward(patches)
        inputs.finish(device)

    return embed


def measure_student(
    name: str, batch_size: int, device: torch.device, precision: str, rounds: int, patience: float
) -> tuple[list[tuple[str, ...]], float, machine.Rounds]:
    """Lines of the table, the ratio of parts (0 without), and the rounds."""
    has_norms = bool(batch_norms(build_encoder(name, SCRATCH, inputs.PATCH_PX).module))
    ways = ["step", "contiguous", "compiled", *([] if has_norms else ["parts"])]
    in_parts = {"parts": batch_size // PARTS}
    steps = {how: Step(name, batch_size, how, device, precision, in_parts.get(how)) for how in ways}
    teachers = {
        "embedding" + words: embedding(name, batch_size, device, precision, compiled=bool(words))
        for words in ("", ", compiled")
    }
    measured = machine.measure_rounds({**steps, **teachers}, wanted=rounds, patience=patience)
    peaks = {how: step.peak_bytes() for how, step in steps.items() if how in ("step", "parts")}
    lines: list[tuple[str, ...]] = []
    for what in (*steps, *teachers):
        beside = "step" if what in steps else "embedding"
        share = f"{peaks[what] / peaks['step']:.3f}" if what in peaks else ""
        milliseconds = measured.seconds(what) / batch_size * 1000
        lines.append((name, what, f"{milliseconds:.2f}", f"{measured.ratio([what], [beside]):.3f}", share))
    return lines, 0.0 if has_norms else measured.ratio(["parts"], ["step"]), measured


def large_batch(name: str, rows: int, micro_batch: int, device: torch.device, precision: str) -> str:
    """Words on a step of a batch of `rows` in parts of `micro_batch`."""
    if batch_norms(build_encoder(name, SCRATCH, inputs.PATCH_PX).module):
        return f"{name}: no batch of {rows} in parts, for it has batch normalisation"
    whole = Step(name, micro_batch, "step", device, precision)
    whole()
    of_whole = whole.peak_bytes()
    large = Step(name, rows, "parts", device, precision, micro_batch)
    started = perf_counter()
    large()
    took = perf_counter() - started
    of_large = large.peak_bytes()
    held = f"{format_bytes(of_large)}, {of_large / of_whole:.3f} of a whole step of {micro_batch}"
    return f"{name}: a batch of {rows} in parts of {micro_batch} takes {held} ({took / rows * 1000:.2f} ms a row)"


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--students", nargs="+", default=["lcnet_050", "resnet10t", "vit_tiny_patch16_224"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--large", type=int, default=0, help="rows of a large batch to step in parts; 0 for none")
    inputs.device_option(parser)
    parser.set_defaults(device="auto")
    args = parser.parse_args()
    device, precision = inputs.start_device(args.device, deterministic=True)
    lines, notes, worst, quiet = [], [], 0.0, True
    for name in args.students:
        found, ratio, rounds = measure_student(name, args.batch_size, device, precision, args.rounds, args.patience)
        lines += found
        notes.append(f"{name}: {rounds.words()}")
        worst, quiet = max(worst, ratio), quiet and rounds.quiet
    print(f"milliseconds a row, batches of {args.batch_size} of 224 px, {precision} on {device}")
    header = ("model", "what", "ms a row", "times the eager one", "its memory")
    print(table(lines, header, right=range(2, len(header))))
    print("\n".join(notes))
    if args.large:
        for name in args.students:
            print(large_batch(name, args.large, args.batch_size, device, precision))
    return machine.conclude(worst, at_most=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
