"""The Python and the commands of README, docs/python.md and docs/guide.md run word for word, on small slides and
encoders of the names there.
"""

import logging
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from support.command_lines import as_read, lines_of, shell_blocks
from support.commands import call_g2l
from support.places import ROOT

from pipeline.cohort.manifest.rows import split_of_case
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import TrainConfig
from pipeline.encoders import table
from pipeline.encoders.table import EncoderSpec
from pipeline.store.store import Store
from stages import train_student as stage_two
from stages.reports.train import Trained
from stages.train_student import train_student

SMALL = {"img_size": 224, "patch_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def python_of(path: Path) -> list[str]:
    """The blocks of Python in a page that use this library."""
    return [code for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.S) if "import timm" not in code]


def small(name: str) -> EncoderSpec:
    """An encoder of the table, with a small architecture."""
    return replace(table.ENCODERS[name], architecture="vit_tiny_patch16_224", arguments=SMALL, width=0)


def write_weights(path: Path) -> None:
    """Random weights of the small architecture."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    safetensors.torch.save_file(model.state_dict(), path)


def briefly(store: Store, out: Path, config: TrainConfig, **options: Any) -> Trained:
    """Stage two with two epochs at most."""
    return train_student(store, out, config.model_copy(update={"epochs": min(config.epochs, 2)}), **options)


@pytest.fixture
def place(tmp_path: Path, slides_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with `slides/`, of which one is held out, and the student's weights; those of all encoders that
    the pages name are in the hub's cache. Students are trained for two epochs, whatever a page says: a checkpoint each
    suffices.
    """
    shutil.copytree(slides_dir, tmp_path / "slides", ignore=shutil.ignore_patterns("*.csv"))
    fraction = PlanConfig.model_fields["val_fraction"].default
    held_out = next(name for i in range(99) if split_of_case(name := f"slide_{i}", fraction) == "val")
    (tmp_path / "slides" / "slide_4.svs").rename(tmp_path / "slides" / f"{held_out}.svs")
    encoders = {name: small(name) for name in ("h-optimus-0", "hibou-l", "virchow2", "uni", "uni2-h")}
    monkeypatch.setattr(table, "ENCODERS", {**table.ENCODERS, **encoders})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(stage_two, "train_student", briefly)
    write_weights(tmp_path / "hibou-l.safetensors")
    for name in encoders:
        repository = encoders[name].source.removeprefix("hf-hub:").replace("/", "--")
        folder = tmp_path / "hub" / f"models--{repository}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("commit")
        (folder / "snapshots" / "commit").mkdir(parents=True)
        write_weights(folder / "snapshots" / "commit" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    levels = logging.root.level, logging.root.handlers[:], logging.getLogger("g2l").level
    yield tmp_path
    logging.root.setLevel(levels[0])
    logging.root.handlers[:] = levels[1]
    logging.getLogger("g2l").setLevel(levels[2])


def test_the_lines_of_the_readme_make_a_student_and_every_block_runs(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The README's block is the first of docs/python.md; it prints nothing."""
    (readme,) = python_of(ROOT / "README.md")
    blocks = python_of(ROOT / "docs" / "python.md")
    assert blocks[0] == readme
    assert len([line for line in readme.splitlines() if line and not line.startswith("import")]) == 6
    names: dict[str, object] = {}
    exec(compile(readme, "README.md", "exec"), names)
    assert capfd.readouterr() == ("", "")
    assert isinstance(names["model"], torch.nn.Module)
    assert names["projector"] is not None
    assert (place / "student" / "model.safetensors").is_file()
    for number, code in enumerate(blocks[1:], start=1):
        exec(compile(code, f"docs/python.md, block {number}", "exec"), names)
    assert "train-student has no option epoch (did you mean epochs?)" in capfd.readouterr().out


def test_the_commands_of_the_readme_lead_to_a_student_that_timm_loads(place: Path) -> None:
    """A new user's way: each command as it stands there, then the lines that load the student."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```bash\n(.*?)```", text.split("## Your own cancer")[1], re.S)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert [words[:2] for words in commands] == [
        ["g2l", name]
        for name in ("make-manifest", "plan", "extract-teacher", "train-student", "export", "evaluate", "embed")
    ]
    for words in commands:
        code, out, errors = call_g2l(*words[1:])
        assert code == 0, (words, out, errors)
    assert (place / "report" / "report.html").is_file()
    assert list((place / "features").rglob("*.h5"))
    (snippet,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "import timm" in code]
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, SMALL["embed_dim"])


ELSEWHERE = {
    "g2l plan slides.csv --slides-root slides/ --out plan.h5 --overlays overlays/ --recipe paper": "test_paper_method",
    "g2l doctor": "doctor/test_doctor",
    "g2l import-features": "test_import_features",
    "g2l evaluate": "test_evaluate",
    "g2l reproduce": "studies/test_reproduce",
    "g2l ablate": "studies/test_ablate",
    "g2l curve": "studies/test_curve",
    "pip install 'g2l[wandb,mlflow]'": "../report/logs/test_tracker",
    "g2l export run --out student --format onnx": "test_export",
    "g2l export run --out student --hub-card": "publishing/test_publish",
    "g2l publish store.zarr": "publishing/test_publish_store",
}
"""Blocks of the guide by how one of their lines begins, which take longer, or ask for what is not here; and the test
module in `tests/stages` that runs such commands. That they parse, `test_command_lines.py` sees.
"""


def test_the_commands_of_the_guide_run(place: Path) -> None:
    """Block after block, as a reader would. What a block writes is taken away before it."""
    page = (ROOT / "docs" / "guide.md").read_text()
    (place / "g2l.toml").write_text("".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    for name in ("slide_1.svs", "slide_2.svs"):  # two slides are enough
        (place / "slides" / name).unlink()
    assert call_g2l("make-manifest", place, "--out", place / "manifest.csv")[0] == 0
    left = dict(ELSEWHERE)
    num_run = 0
    for block in shell_blocks(page.replace("/scratch/", "scratch/")):
        lines = lines_of(block)
        if begins := next((b for b in ELSEWHERE for line in lines if line.startswith(b)), None):
            left.pop(begins, None)
            continue
        calls = [call for line in lines if (call := as_read("docs/guide.md", line, in_block=True))]
        assert len(calls) == len(lines)
        remove_outputs(place, [call.words for call in calls])
        for call in calls:
            code, out, errors = call_g2l(*call.words)
            assert code == 0, (str(call), out, errors)
            num_run += 1
    assert not left
    assert num_run > 20
    for module in ELSEWHERE.values():
        assert (ROOT / "tests" / "stages" / f"{module}.py").resolve().is_file(), module


def remove_outputs(place: Path, calls: list[tuple[str, ...]]) -> None:
    """Remove what the first call of each `--out` would find there, with the tables beside a plan."""
    for words in calls:
        if "--out" not in words:
            continue
        out = place / words[words.index("--out") + 1]
        for path in place.glob(f"{out.stem}.*" if out.suffix == ".h5" else out.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
