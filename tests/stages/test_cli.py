"""The command as a user meets it: real processes, exit codes, words."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.commands import call_g2l, called, run_g2l
from support.earlier import unpack
from support.extraction import TEACHER, write_cohort, write_teacher
from support.inspected import begun_reproduction, begun_study

from pipeline.config.base import Config, differences, read_options
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.disk.locks import exclusive
from pipeline.evaluate.options.config import evaluate_config
from stages.options import Call

COMMANDS = (
    "make-manifest",
    "plan",
    "extract-teacher",
    "import-features",
    "train-student",
    "export",
    "publish",
    "inspect",
    "doctor",
    "verify",
    "reproduce",
    "ablate",
    "curve",
    "models",
    "recipes",
    "demo",
)

NOT_TO_PLAN = ("torch", "timm", "torchvision", "sklearn", "zarr", "huggingface_hub", "obstore")
"""What a process of `g2l plan` does not import: each takes 0.1 s or more."""
NOT_TO_INSPECT = (*NOT_TO_PLAN, "scipy", "openslide", "tifffile", "skimage", "matplotlib", "pandas", "PIL", "httpx")


def test_help_names_every_command_and_imports_no_torch() -> None:
    code = (
        "import sys\nfrom stages.cli import main\nsys.argv = ['g2l', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'zarr', 'openslide'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run_g2l(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("width", ["80", "120"])
def test_a_long_help_is_divided_by_headings(width: str) -> None:
    lines = run_g2l("evaluate", "--help", COLUMNS=width).stdout.splitlines()
    headings = [line.removesuffix(":") for line in lines if re.fullmatch(r"[A-Z][^:]*:", line)]
    assert headings == ["Options", *evaluate_config().panels.values()]
    under = {heading: lines.index(f"{heading}:") for heading in headings}
    at = {
        flag: next(i for i, line in enumerate(lines) if line.startswith(f"  {flag} ")) for flag in ("--draws", "--ri-k")
    }
    assert under["Patch benchmark"] < at["--draws"] < under["Slide benchmark"]
    assert under["Robustness"] < at["--ri-k"] < under["Cost"]
    assert max(map(len, lines)) in range(int(width) - 12, int(width))
    described = {line.index(line.split("  ", 2)[2].strip()) for line in lines if re.match(r"  --\S+ <\w+> ", line)}
    assert len(described) == 1  # the columns of all headings agree


@pytest.mark.parametrize(
    "config", [evaluate_config(), EmbedConfig, ImportConfig, TrainConfig, AblateConfig, CurveConfig]
)
def test_headings_begin_with_fields_in_their_order(config: type[Config]) -> None:
    fields = list(config.model_fields)
    places = [fields.index(name) for name in config.panels]
    assert places[0] == 0
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("command", "config"), [("plan", PlanConfig), ("extract-teacher", ExtractConfig), ("train-student", TrainConfig)]
)
def test_help_shows_every_option_of_the_configuration(command: str, config: type[Config]) -> None:
    shown = run_g2l(command, "--help", COLUMNS="200").stdout
    for name, field in config.model_fields.items():
        assert "--" + name.replace("_", "-") in shown
        assert (field.description or "")[:30] in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("plan",), "missing: manifest, --out"),
        (("plan", "nowhere.csv", "--out", "{tmp}/p.h5"), "nowhere.csv"),
        (("plan", "nowhere.csv", "--out", "{tmp}/p.h5", "--min-tissue", "2"), "min_tissue"),
        (("plan", "nowhere.csv", "--out", "{tmp}/p.h5", "--patch-px", "many"), "patch-px"),
        (("plan", "nowhere.csv", "--out", "{tmp}/p.h5", "--config", "nowhere.toml"), "nowhere.toml"),
        (("extract-teacher", "nowhere.h5", "--out", "{tmp}/s.zarr"), "teacher"),
        (("extract-teacher", "nowhere.h5", "--out", "{tmp}/s.zarr", "--teacher", "x"), "nowhere.h5"),
        (("extract-teacher", "p.h5", "--out", "{tmp}/s.zarr", "--teacher", "x", "--pixels", "png"), "pixels"),
        (("train-student", "nowhere.zarr", "--out", "{tmp}/run", "--student", "x"), "nowhere.zarr"),
        (("inspect", "nowhere"), "nowhere does not exist"),
        (("verify", "nowhere.zarr"), "nowhere.zarr"),
        (("export", "nowhere", "--out", "{tmp}/x"), "nowhere"),
        (("make-manifest", "nowhere", "--out", "{tmp}/m.csv"), "nowhere"),
        (("unknown",), "unknown"),
        (("plan", "--no-such-option"), "no-such-option"),
    ],
)
def test_wrong_use_is_one_clear_error(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    code, said, errors = call_g2l(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert code == 1, said + errors
    assert reason in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_looked_up_loads_no_torch(cohort: Path, tmp_path: Path) -> None:
    """Seconds for a question: a plan's inspection and the list of encoders are files and a table. Nor do planning and
    merging, which is asked for two parts that are not there.
    """
    assert called("plan", cohort, "--out", tmp_path / "plan.h5", "--patch-px", "64").returncode == 0
    code = (
        "import sys\nfrom stages.cli import main\n"
        "plan, manifest, other = sys.argv[1:]\n"
        "def call(*words):\n    sys.argv[1:] = words\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "def refuse(names):\n    heavy = set(names) & set(sys.modules)\n    assert not heavy, heavy\n"
        f"call('inspect', plan), call('inspect', 'nowhere'), refuse({NOT_TO_INSPECT})\n"
        f"call('plan', manifest, '--out', other, '--patch-px', '64')\n"
        f"refuse({NOT_TO_PLAN}), call('models'), call('models', 'h-optimus-0')\n"
        "call('merge', 'a.zarr', 'b.zarr', '--out', other + '.zarr')\n"
        "refuse(('torch', 'timm', 'torchvision'))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plan.h5"), str(cohort), str(tmp_path / "other.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hf-hub:bioptimus/H-optimus-0" in done.stdout
    assert "4 of 4 cases" in done.stdout
    assert "nowhere does not exist" in done.stderr


@pytest.mark.slow
def test_each_kind_of_output_is_inspected_without_torch(tmp_path: Path) -> None:
    """In less than 200 MB, of which torch alone would take more."""
    unpack("0.2.0", tmp_path)
    begun_study(tmp_path / "study")
    begun_reproduction(tmp_path / "reproduction")
    code = (
        "import sys\nfrom stages.cli import main\nsys.argv[1:] = ['inspect', sys.argv[1]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"heavy = set({NOT_TO_INSPECT}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "most = int(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
        "assert most < 200_000, most\n"
    )
    for name in ("plan.h5", "store.zarr", "imported.zarr", "run", "exported", "study", "reproduction"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True)
        assert done.returncode == 0, name + done.stderr
        assert str(tmp_path / name) in done.stdout


@pytest.mark.slow
def test_plan_and_inspect_from_a_cohort(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.h5"
    done = run_g2l(
        "plan", cohort, "--out", out, "--patches-per-slide", "5", "--patch-px", "64", "--overlays", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr
    assert "4 slides of 4 cases and 2 centres" in done.stdout
    assert "1 shard of 20 rows" in done.stdout
    assert len(list((tmp_path / "o").glob("*.png"))) == 4
    audit = (tmp_path / "plan.audit.csv").read_text().splitlines()
    assert len(audit) == 5
    shown = called("inspect", out)
    assert "4 of 4 cases" in shown.stdout
    again = called("plan", cohort, "--out", out)
    assert again.returncode == 1
    assert "not overwritten" in again.stderr


@pytest.mark.parametrize("command", ["make-manifest", "plan", "demo"])
def test_an_output_that_another_command_is_at_is_left_to_it(cohort: Path, tmp_path: Path, command: str) -> None:
    """Two at once used to end well both, and one's work was lost."""
    out, source = tmp_path / "out", {"make-manifest": [cohort.parent], "plan": [cohort], "demo": []}[command]
    with exclusive(out, "another"):
        done = called(command, *source, "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {out} is in use by another (process " in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [".", "..", "/", "a/..", "", "file", "file/x", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("command", ["plan", "make-manifest", "train-student", "extract-teacher", "embed", "export"])
def test_odd_outputs_have_clear_words(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: str
) -> None:
    (tmp_path / "here" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("file").write_text("mine")
    (tmp_path / "thesis.txt").write_text("mine")
    words = {
        "plan": [cohort],
        "make-manifest": [cohort.parent],
        "train-student": ["none.zarr", "--student", TEACHER],
        "extract-teacher": [cohort, "--teacher", TEACHER],
        "embed": [TEACHER, cohort, "--weights", "scratch"],
        "export": ["none"],
    }[command]
    done = called(command, *words, "--out", out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "rror: " in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "file", "here", "thesis.txt"]
    assert Path("file").read_text() == "mine"


def test_home_and_here(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert called("make-manifest", cohort.parent, "--out", "~/m.csv").returncode == 0
    assert (tmp_path / "m.csv").exists()
    _, paths = Call.read("plan", {}, None).resolve(PlanConfig, manifest=Path("m.csv"), out=Path(".."))
    assert paths["out"] == Path.cwd().parent


def test_when_every_slide_fails_the_audit_still_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"no slide")
    (tmp_path / "m.csv").write_text("slide_id,path\na,a.svs\n")
    done = called("plan", tmp_path / "m.csv", "--out", tmp_path / "p.h5")
    assert done.returncode == 1
    assert "no slide has a patch to sample" in done.stderr
    assert "a,failed," in (tmp_path / "p.audit.csv").read_text()
    assert not (tmp_path / "p.h5").exists()


def write_tiny_cohort(folder: Path) -> tuple[Path, Path]:
    """A manifest of one good and one bad slide, and the weights of a tiny teacher."""
    manifest = write_cohort(folder / "slides", num_slides=1)
    (folder / "slides" / "bad.svs").write_bytes(b"no slide")
    manifest.write_text(manifest.read_text() + "bad,bad.svs,c9\n")
    return manifest, write_teacher(folder / "teacher.safetensors")


@pytest.mark.slow
def test_stage_one_from_a_manifest(tmp_path: Path) -> None:
    """A failed slide is no success, in the first call as in the second; the estimate is of what is written.

    Changed rows are noticed, and what was written can be fed back.
    """
    manifest, weights = write_tiny_cohort(tmp_path)
    words = [
        "extract-teacher",
        manifest,
        "--out",
        tmp_path / "s.zarr",
        "--teacher",
        TEACHER,
        "--weights",
        weights,
        "--patch-px",
        "64",
        "--min-tissue",
        "0",
        "--patches-per-slide",
        "12",
        "--rows-per-shard",
        "8",
        "--pixels",
        "none",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--overlays",
        tmp_path / "o",
    ]
    first = called(*words)
    assert first.returncode == 3, first.stderr
    assert "2 shards of 8 rows" in first.stdout
    assert "4 bytes for each row" in first.stdout
    assert "no pixels" in first.stdout
    assert (tmp_path / "o" / "s0.png").exists()
    again = called(*words)
    assert again.returncode == 3, again.stderr
    assert "nothing was left to do" in again.stdout

    record = tmp_path / "all.toml"
    store_record = (tmp_path / "s.zarr" / "config.toml").read_text()
    plan_record = (tmp_path / "s.plan.config.toml").read_text()
    record.write_text(plan_record + store_record.replace("s.plan.h5", "slides/manifest.csv"))
    fed = called("extract-teacher", "--config", record)
    assert fed.returncode == 3, fed.stderr
    assert "nothing was left to do" in fed.stdout

    manifest.write_text(manifest.read_text().replace("bad,bad.svs,c9", "worse,bad.svs,c9"))
    changed = called(*words)
    assert changed.returncode == 1
    assert "worse: new in the manifest" in changed.stderr
    assert "bad: no longer in the manifest" in changed.stderr


@pytest.mark.slow
def test_plan_options_in_the_table_of_stage_one(tmp_path: Path) -> None:
    manifest, weights = write_tiny_cohort(tmp_path)
    table = tmp_path / "g2l.toml"
    table.write_text(
        f'[extract-teacher]\nplan = "{manifest}"\nout = "{tmp_path / "s.zarr"}"\nteacher = "{TEACHER}"\n'
        f'weights = "{weights}"\npatch_px = 64\nmin_tissue = 0.0\npatches_per_slide = 4\ndevice = "cpu"\n'
        "[plan]\npatches_per_slide = 3\nworkers = 1\n"
    )
    done = called("extract-teacher", "--config", table)
    assert done.returncode == 3, done.stderr
    assert "4 rows of 96 dimensions" in done.stdout  # stage one's own table wins over the plan's
    stray = called("extract-teacher", tmp_path / "s.plan.h5", "--out", tmp_path / "t.zarr", "--config", table)
    assert stray.returncode == 1
    assert "--min-tissue" in stray.stderr


@pytest.mark.slow
def test_a_split_with_an_empty_side_is_warned_of(cohort: Path, tmp_path: Path) -> None:
    options = ("--patch-px", "64", "--patches-per-slide", "3")
    nothing_held_out = called("plan", cohort, "--out", tmp_path / "a.h5", *options, "--val-fraction", "0")
    assert "nothing is held out" in nothing_held_out.stdout
    no_training = called("plan", cohort, "--out", tmp_path / "b.h5", *options, "--val-fraction", "0.999")
    assert "nothing to train on" in no_training.stdout


def test_the_version_is_told() -> None:
    assert run_g2l("--version").stdout.startswith("g2l ")


@pytest.mark.parametrize("command", ["make-manifest", "export", "inspect", "verify", "demo"])
def test_paths_may_stand_in_a_file_for_every_command(command: str) -> None:
    assert "--config" in run_g2l(command, "--help").stdout


@pytest.mark.slow
def test_inspect_takes_its_path_from_a_file(cohort: Path, tmp_path: Path) -> None:
    assert called("plan", cohort, "--out", tmp_path / "p.h5", "--patch-px", "64").returncode == 0
    (tmp_path / "g2l.toml").write_text(f'[inspect]\npath = "{tmp_path / "p.h5"}"\n')
    assert "64 px at 0.5 um/px" in called("inspect", "--config", tmp_path / "g2l.toml").stdout


@pytest.mark.slow
def test_the_record_of_a_plan_can_be_fed_back(cohort: Path, tmp_path: Path) -> None:
    first = called(
        "plan", cohort, "--out", tmp_path / "a.h5", "--patches-per-slide", "3", "--patch-px", "64", "--seed", "5"
    )
    assert first.returncode == 0, first.stderr
    record = tomllib.loads((tmp_path / "a.config.toml").read_text())["plan"]
    assert (record["seed"], record["patch_px"], record["min_tissue"]) == (5, 64, 0.5)
    again = called("plan", "--config", tmp_path / "a.config.toml", "--out", tmp_path / "b.h5")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_read_toml_of_another_command_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text("[plan]\nseed = 1\n")
    assert read_options(file, "train-student") == {}


def test_differences_are_named_by_path() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}) == ["b.c: 2 -> 3", "d: nothing -> 4"]


def test_a_configuration_is_frozen_and_hashes_by_content() -> None:
    config = PlanConfig(seed=3)
    assert config.hash() == PlanConfig(seed=3).hash() != PlanConfig(seed=4).hash()
    with pytest.raises(Exception, match="frozen"):
        config.seed = 4  # type: ignore[misc]


def test_mistyped_options_encoders_and_tables_get_the_likely_one(tmp_path: Path) -> None:
    for words, meant in (
        (("train-student", "s.zarr", "--out", tmp_path / "r", "--student", "uni", "--loss", "logsum"), "log-sum"),
        (("embed", "uni", tmp_path, "--out", tmp_path / "e", "--layout", "tridnet"), "trident"),
        (("models", "h-optimus0"), "h-optimus-0"),
        (("models", "resnet81"), "resnet18"),
    ):
        code, _, errors = call_g2l(*words)
        assert code == 1
        assert f"did you mean {meant}?" in errors
    (tmp_path / "c.toml").write_text("[tran-student]\n")
    code, _, errors = call_g2l("train-student", "s.zarr", "--config", tmp_path / "c.toml")
    assert (code, "did you mean train-student?" in errors) == (1, True)


def test_from_a_working_folder_that_is_gone_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own libraries end the process there."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, errors = call_g2l("make-manifest", tmp_path, "--out", tmp_path / "m.csv")
    assert (code, errors) == (
        1,
        "error: the working folder has been deleted or moved away; change to one that exists (cd)\n",
    )
    assert not (tmp_path / "m.csv").exists()
