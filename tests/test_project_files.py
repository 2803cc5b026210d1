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
from typing import Any

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


README = (ROOT / "README.md").read_text()
CITATION_KEYS = {
    "cff-version",
    "message",
    "title",
    "authors",
    "abstract",
    "commit",
    "contact",
    "date-released",
    "doi",
    "identifiers",
    "keywords",
    "license",
    "license-url",
    "preferred-citation",
    "references",
    "repository",
    "repository-artifact",
    "repository-code",
    "type",
    "url",
    "version",
}
"""Keys that CFF 1.2.0 knows, at the top: citation-file-format.github.io, schema-guide. No others are allowed."""
PERSON_KEYS = {
    "address",
    "affiliation",
    "alias",
    "city",
    "country",
    "email",
    "family-names",
    "fax",
    "given-names",
    "name",
    "name-particle",
    "name-suffix",
    "orcid",
    "post-code",
    "region",
    "tel",
    "website",
    "date-end",
    "date-start",
    "location",
}
"""Of a person or an entity there."""


def authors_of(citation: dict[str, Any]) -> list[dict[str, Any]]:
    """All authors in a citation file."""
    return [author for each in (citation, *citation["references"]) for author in each["authors"]]


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


def test_licence_and_notice_go_into_the_packages() -> None:
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"}
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])
    assert citation.keys() <= CITATION_KEYS
    assert citation["type"] in ("software", "dataset")
    assert all(author.keys() <= PERSON_KEYS for author in authors_of(citation))
    assert any("2510.11176" in i["value"] for r in citation["references"] for i in r.get("identifiers", []))


def test_a_released_version_has_its_date() -> None:
    """CHANGELOG.md says that a version is not released, or on which day it was; the citation says the same."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(rf"^## {re.escape(PROJECT['version'])} \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading is not None
    released = "" if heading[1] == "unreleased" else heading[1]
    assert str(citation.get("date-released", "")) == released


def test_a_package_index_can_show_what_the_package_says_of_itself() -> None:
    """The page of a package is not the repository: links and pictures that are relative lead nowhere there."""
    page = (ROOT / PROJECT["readme"]).read_text()
    targets = re.findall(r"\]\(([^)]+)\)|(?:src|href)=[\"']([^\"']+)", page)
    assert not [target for pair in targets for target in pair if target and not target.startswith("https://")]
    assert page.startswith("# G2L\n")
    assert {line for line in page.splitlines() if line.startswith("g2l ")} > set(
        re.findall(r"^g2l (?:make-manifest|plan|extract-teacher|train-student|export) .*", README, re.MULTILINE)
    )
    extras = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", page, re.MULTILINE))))
    assert extras == PROJECT["optional-dependencies"].keys() - {"dev", "docs"}
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    assert PROJECT["authors"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["authors"]
    assert PROJECT["keywords"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["keywords"]
    pythons = [each.rsplit(" ", 1)[1] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert min(pythons, key=lambda number: int(number[2:])) == PROJECT["requires-python"].removeprefix(">=")


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


ON_DEVICES = (
    "loading_speed",
    "normalise",
    "peers",
    "processes_step",
    "stage_one_busy",
    "stage_one_speed",
    "stage_two_speed",
    "student_step",
)
"""Benchmarks that take --device."""
STARTED = """
import os, runpy, sys, traceback
import stages.evaluate, stages.extract_teacher, stages.plan, stages.train_student  # once for all of them

folder, on_devices, *names = sys.argv[1:]
sys.path[0] = folder

def show(name):
    sys.argv = [os.path.join(folder, name + ".py"), "--help"]
    runpy.run_path(sys.argv[0], run_name="__main__")

def in_fork(name, call):
    child = os.fork()
    if not child:
        try:
            call()
            sys.stdout.flush()
            os._exit(0)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr)

for name in names:
    in_fork(name, lambda: show(name))
print("DEVICES", flush=True)
in_fork("on devices", lambda: exec(on_devices, {}))
"""
"""Starts scripts of a folder as `python FOLDER/NAME.py --help` does, and prints what each ends with; then a program
that imports them.
"""
CHOOSES = f"""
import importlib, sys
def code_of(name, device):
    sys.argv = [name, '--device', device]
    try:
        return importlib.import_module(name).main()
    except SystemExit as end:
        return end.code
def show(*values, **named):
    sys.exit(', '.join(str(value) for value in values if str(value) in ('cpu', 'meta')))
for name in {ON_DEVICES}:
    print(code_of(name, 'nowhere'))
import inputs, loading_speed, normalise, stage_one_busy, stage_one_speed, stage_two_speed, student_step
import torch
from unittest.mock import create_autospec
real = inputs.choose_device
inputs.choose_device = lambda name: torch.device(name) if name == 'meta' else real(name)
for module, name in ((inputs, 'make_plan'), (stage_one_busy, 'make_plan'),
                     (stage_two_speed, 'make_store'), (loading_speed, 'make_store')):
    setattr(module, name, create_autospec(getattr(module, name)))
stage_one_speed.StageOne = stage_two_speed.StageTwo = loading_speed.Loading = stage_one_busy.Stage = show
student_step.measure_student = show
normalise.ways_of = lambda patches, values: show(patches.device, *(value.device for value in values))
for name in ('loading_speed', 'stage_one_busy', 'stage_one_speed', 'stage_two_speed', 'student_step'):
    print(code_of(name, 'meta'), code_of(name, 'cpu'))
print(code_of('normalise', 'meta'))
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """The names of all benchmarks, and what `STARTED` says of them, in any folder, with the module path of the
    installed package only; and then of `CHOOSES`.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    names = [script.stem for script in scripts if "parse_args(" in script.read_text()]
    command = [sys.executable, "-c", STARTED, str(ROOT / "benchmarks"), CHOOSES, *names]
    folder = tmp_path_factory.mktemp("anywhere")
    return names, subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_every_benchmark_starts_from_any_folder(started: tuple[list[str], subprocess.CompletedProcess[str]]) -> None:
    """As RESULTS.md has them."""
    names, done = started
    shown, _ = done.stdout.split("DEVICES\n")
    assert len(names) > 20
    assert done.stderr.splitlines() == [*(f"{name} 0" for name in names), "on devices 0"]
    assert all(f"usage: {name}.py " in shown for name in names)


@pytest.mark.slow
def test_a_benchmark_runs_on_the_device_that_is_asked_for(
    started: tuple[list[str], subprocess.CompletedProcess[str]],
) -> None:
    """Or says that it is not there; `meta` is torch's device without memory, which every machine has, and which is
    taken here for one that computes.
    """
    lines = started[1].stdout.split("DEVICES\n")[1].splitlines()
    refused, passed_on, made = lines[: len(ON_DEVICES)], lines[len(ON_DEVICES) : -1], lines[-1]
    assert all(line.startswith("error: --device nowhere: not usable here") for line in refused), started[1].stderr
    assert len(refused) == len(ON_DEVICES)
    assert passed_on == ["meta cpu"] * 5
    assert made == "meta, meta, meta"


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


def missing_evidence(text: str) -> list[str]:
    """Tests and files that a page names as its evidence and that are not there."""
    missing = []
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        path = ROOT / file
        defined = (
            {node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef)} if path.exists() else {}
        )
        if not path.exists() or (name and name not in defined):
            missing.append(f"{file}::{name}")
    linked = re.findall(r"\]\(((?:logs|images)/[^)#]+|\w+\.md)\)", text)
    return missing + [path for path in linked if not (ROOT / "docs" / path).is_file()]


def test_what_shows_a_promise_is_there() -> None:
    text = (ROOT / "docs" / "shown.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 35
    assert all("`tests/" in row or "](" in row for row in rows)
    assert missing_evidence(text) == []
    logs = {path.name for path in (ROOT / "docs" / "logs").glob("*.txt")}
    assert logs == set(re.findall(r"\]\(logs/([^)]+)\)", text))
    gone = "`tests/test_site.py::test_no_such_thing` `tests/no_such.py` [a](logs/none.txt)"
    assert len(missing_evidence(gone)) == 3


def test_logs_name_no_machine() -> None:
    for path in (ROOT / "docs" / "logs").glob("*.txt"):
        text = path.read_text()
        assert not re.search(r"(^|[\s'\"])/(home|root|tmp|work)/|Traceback", text), path.name
        assert "[exit code" in text
