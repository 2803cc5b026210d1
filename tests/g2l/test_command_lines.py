"""Every `g2l ...` that README, guide and the other pages show is one that the command would run as it stands there."""

import re
from pathlib import Path

import pytest
import typer.main
from support.command_lines import PAGES, CommandLine, as_read, command_lines, lines_of, refusal, shell_blocks
from support.places import ROOT

from pipeline.config.base import COMMANDS
from stages import cli

LINES = list(command_lines())
OF_OTHERS = {
    "torchrun": "standalone no-python nproc-per-node nnodes node-rank rdzv-backend rdzv-endpoint rdzv-id master-addr "
    "master-port max-restarts",
    "sbatch": "nodes ntasks-per-node gpus-per-node cpus-per-task gpus array requeue",
    "hf": "repo-type local-dir private",
    "mlflow, tensorboard, wandb": "backend-store-uri logdir append",
    "curl and sort, for a random part of the GDC": "request header data random-source",
    "jupytext": "to",
    "benchmarks/sampling_probe.py, artefacts.py and artefacts_both.py": "tiles rules picture first-seed seeds",
    "PathoROB and plismbench": "extractor model",
}
"""Options in our pages that are of other programs."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the options in a file that the guide shows."""
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)
    (tmp_path / "g2l.toml").write_text(toml)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(text: str, *, in_block: bool = True) -> CommandLine:
    read = as_read("a page", text, in_block=in_block)
    assert read is not None
    return read


def test_the_lines_are_found() -> None:
    pages = {str(path.relative_to(ROOT)) for path in PAGES}
    found = {each.page for each in LINES}
    assert {"README.md", "docs/guide.md", "docs/scale.md", "data_manifests/README.md"} <= found <= pages
    assert len(LINES) > 150
    assert sum(each.is_whole for each in LINES) > 60
    blocks = shell_blocks((ROOT / "docs" / "guide.md").read_text())
    whole = {each.words for each in LINES if each.page == "docs/guide.md" and each.is_whole}
    for text in (text for block in blocks for text in lines_of(block) if "g2l " in text and "..." not in text):
        assert line(text).words in whole


@pytest.mark.parametrize("command", COMMANDS)
def test_the_lines_of_a_command_are_understood(folder: Path, command: str) -> None:
    lines = [each for each in LINES if each.words[0] == command]
    assert lines, f"no page shows {command}"
    assert {str(each): said for each in lines if (said := refusal(each))} == {}
    assert list(folder.iterdir()) == [folder / "g2l.toml"]  # and nothing ran


def test_all_lines_are_of_a_command() -> None:
    assert not [str(each) for each in LINES if each.words[0] not in (*COMMANDS, "--help", "--version")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g2l plam slides.csv --out plan.h5", "No such command"),
        ("g2l plan slides.csv --out plan.h5 --no-such-option 1", "No such option"),
        ("g2l plan slides.csv --out plan.h5 --sample sprad", "did you mean spread"),
        ("g2l plan slides.csv --out plan.h5 --patches-per-slide many", "valid integer"),
        ("g2l plan slides.csv", "missing: --out"),
        ("torchrun --nproc-per-node 2 g2l train-student store.zarr --out run", "student: missing"),
        ("g2l ablate store.zarr --out study --student hibou-l --loss log", "did you mean log-sum"),
        ("g2l export run --out student --format onx", "did you mean onnx"),
        ("g2l evaluate --out report --protocol evaa --models uni", "did you mean eva"),
        ("g2l train-student store.zarr --out run --student hibou-l --config absent.toml", "absent.toml"),
    ],
)
def test_a_line_that_is_wrong_is_seen(folder: Path, text: str, words: str) -> None:
    assert words in refusal(line(text))


def test_what_a_line_leaves_out_is_not_held_against_it(folder: Path) -> None:
    assert refusal(line("g2l plan --sample", in_block=False)) == ""
    assert refusal(line("g2l ablate off.zarr ... --vary alpha=2")) == ""
    assert "No such option" in refusal(line("g2l plan --sampel", in_block=False))


def test_lines_are_read_as_a_shell_reads_them() -> None:
    block = "#!/bin/bash\n#SBATCH --array=1-32\n# words\n"
    block += "A=1 g2l plan a.csv \\\n    --out 'b c'  # words\n\nls '#x' && g2l demo > log"
    assert lines_of(block) == ["A=1 g2l plan a.csv      --out 'b c'", "ls '#x' && g2l demo > log"]
    assert [line(text).words for text in lines_of(block)] == [("plan", "a.csv", "--out", "b c"), ("demo",)]
    assert as_read("a page", "pip install 'g2l[onnx]'", in_block=True) is None
    assert line("g2l verify $STORE --sample ${ROWS} | tee log").words == ("verify", "1", "--sample", "1")


@pytest.mark.parametrize("path", [path for path in PAGES if path.suffix == ".md"], ids=lambda path: path.name)
def test_every_option_on_a_page_is_there(path: Path) -> None:
    """Also those that stand alone in a sentence. Benchmarks have options of their own."""
    if path == ROOT / "benchmarks" / "RESULTS.md":
        return
    group = typer.main.get_command(cli.app)
    commands = [group, *getattr(group, "commands").values()]  # noqa: B009
    known = {name for each in commands for param in each.params for name in (*param.opts, *param.secondary_opts)}
    others = {f"--{name}" for names in OF_OTHERS.values() for name in names.split()} | {"--help"}
    text = re.sub(r"\]\([^)]*\)", "]", path.read_text())
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*+(?!>)", text))  # not the arrows of a diagram
    assert found - known - others == set()
