"""What TensorBoard shows is what `metrics.jsonl` holds."""

import sys
import time
from pathlib import Path

import pytest

from pipeline.training import tensorboard
from pipeline.training.tensorboard import TensorBoard

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

LINES = [
    {"kind": "val", "step": 0, "epoch": 0, "loss": 9.0, "rows": 5, "cka": 0.25},
    {"kind": "step", "step": 1, "epoch": 0, "loss": 8.0, "lr": 0.5, "grad_norm": 2.0},
    {"kind": "step", "step": 2, "epoch": 0, "loss": 7.0, "lr": 0.25, "grad_norm": 1.0},
]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars by name: (step, value) as TensorBoard itself reads them."""
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_lines_are_scalars(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0)
    for line in LINES:
        board.append(line)
    board.close()
    assert read(tmp_path) == {
        "held-out/loss": [(0, 9.0)],
        "held-out/cka": [(0, 0.25)],
        "train/loss": [(1, 8.0), (2, 7.0)],
        "train/lr": [(1, 0.5), (2, 0.25)],
        "train/grad_norm": [(1, 2.0), (2, 1.0)],
    }


@pytest.mark.slow
def test_a_continued_run_hides_what_was_beyond_its_checkpoint(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, 0)
    for line in LINES:
        first.append(line)
    first.close()
    time.sleep(1.1)  # TensorBoard orders files by the second in their names
    again = TensorBoard(tmp_path, 2)
    again.append(LINES[2] | {"loss": 6.5})
    again.close()
    assert read(tmp_path)["train/loss"] == [(1, 8.0), (2, 6.5)]


def test_nothing_is_written_without_a_folder_or_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TensorBoard(None, 0).append(LINES[0])
    monkeypatch.setattr(tensorboard, "find_spec", lambda _: None)
    board = TensorBoard(tmp_path, 0)
    board.append(LINES[1])
    board.close()
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_without_one_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody asked for it: it is written where it is installed, in whatever state that is."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = TensorBoard(tmp_path / "board", 0)
    board.append(LINES[1])
    board.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: TensorBoard: ModuleNotFoundError: ")
    assert line.endswith("The run goes on without it")


@pytest.mark.parametrize("method", ["add_scalar", "close"])
def test_a_run_goes_on_without_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("Descriptors cannot be created directly.\nMore")

    monkeypatch.setattr(f"torch.utils.tensorboard.SummaryWriter.{method}", fail)
    board = TensorBoard(tmp_path, 0)
    for line in LINES:
        board.append(line)
    board.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "TypeError: Descriptors cannot be created directly.. The run goes on" in line
