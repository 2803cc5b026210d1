"""What the project says of itself: licence, notice and citation agree with the package, its benchmarks start, and what
docs/paper.md points at is there.
"""

import ast
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml
from support.commands import call_g2l
from support.places import ROOT, parsed

from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.evaluate.options.config import evaluate_config

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""Of https://www.apache.org/licenses/LICENSE-2.0.txt as most projects carry it (without the leading blank line)."""


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


def test_licence_and_notice_go_into_the_packages() -> None:
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE", "CITATION.cff"}
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])
    assert any("2510.11176" in i["value"] for r in citation["references"] for i in r.get("identifiers", []))


def test_the_version_is_said_in_one_place() -> None:
    """The citation's is held against it above. Code asks the installed package."""
    number = re.compile(rf"""["']{re.escape(PROJECT["version"])}["']""")
    places = [path for name in ("g2l", "pipeline", "stages") for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in places if number.search(path.read_text())]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_lower_bounds_are_those_that_were_proven() -> None:
    """The gate runs the suite with the lowest versions when this list changes, and only then may it be written."""
    listed = subprocess.run([sys.executable, ROOT / ".ci" / "lowest.py"], capture_output=True, text=True, check=True)
    assert listed.stdout.count("==") > 25
    assert listed.stdout == (ROOT / ".ci" / "lowest-proven.txt").read_text(), "run make test-lowest"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_contributors_are_told_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    in_code = re.findall(r"`([\w.-]+/[\w./-]*)`", text)
    targets = re.findall(r"`make ([\w-]+)`", text)
    assert linked
    assert not [path for path in (*linked, *in_code) if not (ROOT / path.rstrip("/")).exists()]
    assert not set(targets) - set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_template_of_an_issue_asks_for_what_commands_print() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    template = yaml.safe_load((folder / "problem.yml").read_text())
    assert {"name", "description", "body"} <= template.keys()
    labels = [part["attributes"].get("label", "") for part in template["body"]]
    for command in ("g2l doctor", "g2l inspect"):
        assert any(command in label for label in labels)
        assert call_g2l(command.split()[1], "--help")[0] == 0
    assert len({part["id"] for part in template["body"] if "id" in part}) == len(labels) - 1
    assert yaml.safe_load((folder / "config.yml").read_text())["blank_issues_enabled"] is True


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["codec", "evaluate_speed", "fuzz", "kill_campaign", "probe_choice", "processes_step", "student_step"]
)
def test_a_benchmark_starts_from_any_folder(tmp_path: Path, name: str) -> None:
    """As RESULTS.md has them, with the module path of the installed package only."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


PAPER = (ROOT / "docs" / "paper.md").read_text()
LINKS = re.findall(r"\[`(\w+)`\]\(\.\./([^)]+)\)", PAPER)
"""Names that docs/paper.md points at, and the files that they are in."""


def missing_links(links: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Links whose file is not there, or does not define the name at its top."""
    missing = []
    for name, file in links:
        path = ROOT / file
        nodes = parsed(path).body if path.is_file() else []
        named = {getattr(node, "name", "") for node in nodes}
        targets = [node.target if isinstance(node, ast.AnnAssign) else node for node in nodes]
        named |= {node.id for node in targets if isinstance(node, ast.Name)}
        if name not in named:
            missing.append((name, file))
    return missing


def test_what_the_paper_is_compared_with_is_in_the_code() -> None:
    assert len(LINKS) > 15
    assert missing_links(LINKS) == []
    gone = [("log_sum_loss", "pipeline/no_loss.py"), ("no_such_loss", "pipeline/loss.py")]
    assert missing_links(gone) == gone


def test_all_options_and_files_of_the_paper_exist() -> None:
    options = {"--config", "--out"}
    for config in (PlanConfig, ExtractConfig, TrainConfig, evaluate_config()):
        options |= {"--" + name.replace("_", "-") for name in config.model_fields}
    assert set(re.findall(r"--[a-z0-9-]+\b", PAPER)) <= options
    for file in re.findall(r"`((?:pipeline|stages|tests|docs)/[\w/.-]+)`", PAPER):
        assert (ROOT / file).exists(), file


def test_the_notebook_s_page_has_its_cells_as_they_are() -> None:
    """`docs/notebook/render.py` writes the page; its outputs are of the run that it was written from."""
    page = (ROOT / "docs" / "notebook.md").read_text()
    place = 0
    for cell in jupytext.read(ROOT / "docs" / "notebook" / "demo.py").cells:
        text = f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source
        place = page.find(text, place)
        assert place >= 0, f"not on the page, or not in order: {text[:60]}. Run docs/notebook/render.py"
    assert len(set(re.findall(r"\]\((images/notebook_[0-9]\.jpg)\)", page))) == 5
