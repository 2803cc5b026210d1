"""Checkpoints: the last few kept, damaged ones passed over, never a half-written one."""

import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.damage import Evil

from pipeline.base.errors import CheckpointError
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.projector import Projector
from pipeline.training.checkpoint import delete_old, load_last_checkpoint, save_checkpoint


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((100,), float(step)), "nested": {"a": [torch.tensor(step)]}}


def saved(folder: Path, *steps: int) -> Path:
    for step in steps:
        save_checkpoint(folder, step, content(step))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def step_loaded(folder: Path) -> int | None:
    checkpoint = load_last_checkpoint(folder)
    if checkpoint is not None:
        assert torch.equal(checkpoint["weights"], content(checkpoint["step"])["weights"])
    return None if checkpoint is None else int(checkpoint["step"])


def pt(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.pt"


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_last_checkpoint(tmp_path / "absent") is None
    assert load_last_checkpoint(tmp_path) is None


def test_the_last_two_are_kept_and_the_last_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 0, 8, 100, 1_000_000)
    assert names(tmp_path) == ["step-000000100.json", "step-000000100.pt", "step-001000000.json", "step-001000000.pt"]
    assert step_loaded(tmp_path) == 1_000_000


@pytest.mark.parametrize("deleted", [[], [".json"], [".json", ".pt"]], ids=["nothing", "the entry", "all"])
def test_a_run_killed_before_it_has_deleted_old_ones_does_so_when_it_continues(
    tmp_path: Path, deleted: list[str]
) -> None:
    """Between the last checkpoint and the deletion of the one before the last two; or half way through that."""
    saved(tmp_path / "run", 0, 4, 8)
    saved(tmp_path / "early", 0)
    for path in (tmp_path / "early").iterdir():
        if path.suffix not in deleted:
            shutil.copy(path, tmp_path / "run")
    delete_old(tmp_path / "run", 8)
    assert names(tmp_path / "run") == [f"step-00000000{step}.{suffix}" for step in (4, 8) for suffix in ("json", "pt")]


def test_deleting_old_ones_leaves_the_best_and_later_ones(tmp_path: Path) -> None:
    """A later one is damaged: whoever continues from an earlier one has been told, and may want to look at it."""
    save_checkpoint(tmp_path, 4, content(4), best=4)
    for step in (8, 12, 16, 20):
        save_checkpoint(tmp_path, step, content(step), best=4)
    for suffix in (".json", ".pt"):  # as if a kill had left them
        shutil.copy(pt(tmp_path, 16).with_suffix(suffix), pt(tmp_path, 12).with_suffix(suffix))
        shutil.copy(pt(tmp_path, 16).with_suffix(suffix), pt(tmp_path, 10).with_suffix(suffix))
    delete_old(tmp_path, 16)
    steps = [name for name in names(tmp_path) if name.endswith(".pt")]
    assert steps == [pt(tmp_path, step).name for step in (4, 12, 16, 20)]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "json cut", "json flipped", "json list", "json binary"])
def test_a_damaged_one_is_passed_over_with_a_warning(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pt(saved(tmp_path, 4, 8), 8)
    entry = path.with_suffix(".json")
    if damage in ("cut", "empty"):
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "json cut":
        os.truncate(entry, 10)
    elif damage == "json flipped":
        entry.write_text(entry.read_text().replace("sha256", "sha257"))
    else:
        entry.write_bytes(b"[1]" if damage == "json list" else b"\xff\xfe")
    assert step_loaded(tmp_path) == 4
    words = capsys.readouterr().err
    assert f"{path}: damaged" in words
    assert "before it" in words


def test_killed_between_the_two_files_is_passed_over_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pt(saved(tmp_path, 4, 8), 8).with_suffix(".json").unlink()
    assert step_loaded(tmp_path) == 4
    pt(tmp_path, 4).with_suffix(".json").unlink()
    assert step_loaded(tmp_path) is None
    assert capsys.readouterr().err == ""


def test_none_whole_is_an_error(tmp_path: Path) -> None:
    saved(tmp_path, 4, 8)
    for step in (4, 8):
        os.truncate(pt(tmp_path, step), 100)
    with pytest.raises(CheckpointError, match=r"all checkpoints are damaged\. Delete the folder to train from the"):
        load_last_checkpoint(tmp_path)


def test_a_damaged_later_one_never_pushes_out_a_whole_one(tmp_path: Path) -> None:
    """After falling back from a damaged step 20 to 10, steps 13 and 16 must not be deleted in its favour."""
    os.truncate(pt(saved(tmp_path, 10, 20), 20), 50)
    assert step_loaded(tmp_path) == 10
    saved(tmp_path, 13)
    assert [name for name in names(tmp_path) if name.endswith(".pt")] == [pt(tmp_path, s).name for s in (10, 13)]
    saved(tmp_path, 16)
    assert step_loaded(tmp_path) == 16
    os.truncate(pt(tmp_path, 16), 50)
    assert step_loaded(tmp_path) == 13


def test_a_step_that_is_saved_again_is_never_taken_for_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the new weights and their entry, with the entry of a damaged one in place before."""
    saved(tmp_path, 4, 8)
    monkeypatch.setattr("pipeline.training.checkpoint.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 8, content(9))
    assert step_loaded(tmp_path) == 4


def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path: Path) -> None:
    saved(tmp_path, 4, 8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # writes beyond fail, as on a full disk
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot write the checkpoint .*step-000000012.pt \(File too large\)"
        ):
            save_checkpoint(tmp_path, 12, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert step_loaded(tmp_path) == 8
    assert not list(tmp_path.glob("*" + ASIDE_SUFFIX))


def test_the_projectors_statistics_and_an_optimizer_come_back_to_the_bit(tmp_path: Path) -> None:
    projector = Projector(4, 5).train()
    optimizer = torch.optim.AdamW(projector.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        student, teacher = torch.randn(8, 4, generator=generator), torch.randn(8, 5, generator=generator)
        a, b = projector(student, teacher)
        optimizer.zero_grad()
        (a - b).square().sum().backward()
        optimizer.step()
    state = {"projector": projector.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path, 3, state)
    loaded = load_last_checkpoint(tmp_path)
    assert loaded is not None
    copy = Projector(4, 5)
    copy.load_state_dict(loaded["projector"])
    assert int(copy.student_norm.num_batches) == 3
    for name, value in projector.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value), name
    again = torch.optim.AdamW(copy.parameters(), lr=0.5)
    again.load_state_dict(loaded["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1
    for old, new in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_only_tensors_are_unpickled(tmp_path: Path) -> None:
    """A checkpoint that was swapped for one with code in it does not run it, even with the right checksum."""
    save_checkpoint(tmp_path, 1, {"evil": Evil(tmp_path / "ran")})
    assert json.loads(pt(tmp_path, 1).with_suffix(".json").read_text())["step"] == 1
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_last_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()
