"""Options of commands: made from configurations, taken from flags, a file and defaults, and checked."""

import re
import unicodedata
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError
from pipeline.config.base import COMMANDS, Config, option, to_toml
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import OUR_CHOICE, RECIPES, RecipeValue, recipe_values
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.evaluate.options.config import evaluate_config
from stages.cli import app
from stages.options import (
    KNOWN_OPTIONS,
    Call,
    CommandWithPanels,
    nonempty_path,
    require_utf8,
    usable_path,
    with_options,
)

NFC, NFD = (unicodedata.normalize(form, "Séance é") for form in ("NFC", "NFD"))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text('[plan]\nmanifest = "m.csv"\nseed = 7\nmpp = 1\n[train-student]\nepochs = 3\n')
    config, paths = Call.read("plan", {"seed": 9}, file).resolve(PlanConfig, manifest=None, out=tmp_path / "p.h5")
    assert (config.seed, config.mpp, config.patch_px) == (9, 1.0, 224)
    assert paths == {"manifest": Path("m.csv"), "out": tmp_path / "p.h5"}


def test_a_record_resolves_to_the_same_configuration(tmp_path: Path) -> None:
    config = TrainConfig(student="x", epochs=7, lr=0.5, slides_root=None, deterministic=False)
    file = tmp_path / "config.toml"
    file.write_text(to_toml({"train-student": {"store": "s.zarr", "out": "run"} | config.record()}))
    again, paths = Call.read("train-student", {}, file).resolve(TrainConfig, store=None, out=None)
    assert again == config
    assert paths == {"store": Path("s.zarr"), "out": Path("run")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[plan]\nsede = 1\n", "sede"),
        ("[plan]\nseed = -1\n", "seed"),
        ('[plan]\nseed = "one"\n', "seed"),
        ("seed = 1\n", "seed must be in the table"),
        ("[train_student]\nlr = 0.5\n", r"\[train_student\] is not a command"),
        ("[plan]\nmpp = 1000\n", "mpp"),
        ("[plan\n", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_named(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        Call.read("plan", {}, file).resolve(PlanConfig)


# --- recipes -----------------------------------------------------------------------------------------------------


def test_a_recipe_wins_over_defaults_only(tmp_path: Path) -> None:
    """Flag, table, recipe, default; what the recipe sets counts as chosen."""
    file = tmp_path / "g2l.toml"
    file.write_text('[train-student]\nrecipe = "paper"\nstudent = "s"\nepochs = 3\nlr = 0.5\n')
    config, _ = Call.read("train-student", {"lr": 0.25}, file).resolve(TrainConfig)
    assert (config.lr, config.epochs, config.batch_size, config.val_every) == (0.25, 3, 32, 1)
    assert config.recipe == "paper"
    assert config.for_views(4).augment == "none"
    assert "augment" in config.model_fields_set
    other, _ = Call.read("train-student", {"recipe": "default"}, file).resolve(TrainConfig)
    assert (other.recipe, other.lr, other.batch_size) == ("default", 0.5, 256)
    plain, _ = Call.read("train-student", {"student": "s"}, None).resolve(TrainConfig)
    assert (plain.recipe, plain.batch_size) == (None, 256)
    with pytest.raises(ConfigError, match=r"recipe: .*did you mean paper\?"):
        Call.read("train-student", {"student": "s", "recipe": "papper"}, None).resolve(TrainConfig)


@pytest.mark.parametrize("flags", [{}, {"early_stop": "off", "clip": 1.0, "final_lr": 0.01, "batch_size": 256}])
def test_the_record_of_a_recipe_resolves_to_the_same(tmp_path: Path, flags: dict[str, object]) -> None:
    """Also where single options have their defaults again, which records leave out without a recipe."""
    given = {"student": "s", "recipe": "paper", **flags}
    config, _ = Call.read("train-student", given, None).resolve(TrainConfig)
    file = tmp_path / "config.toml"
    file.write_text(to_toml({"train-student": config.record()}))
    again, _ = Call.read("train-student", {}, file).resolve(TrainConfig)
    assert again == config
    assert {name: getattr(again, name) for name in flags} == flags


def test_the_recipe_of_stage_one_holds_for_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given by the call or by the plan's own table; a finished plan is not asked to change by it."""
    paper = {"plan": {"seed": RecipeValue(7, OUR_CHOICE, "a test")}, "extract-teacher": {}, "train-student": {}}
    monkeypatch.setitem(RECIPES, "paper", paper)
    only_plan = PlanConfig.model_fields.keys() - ExtractConfig.model_fields.keys()
    call = Call.read("extract-teacher", {"teacher": "uni", "recipe": "paper"}, None)
    plan = call.resolve_another(PlanConfig, "plan")
    assert (plan.recipe, plan.seed) == ("paper", 7)
    assert call.resolve(ExtractConfig, others=only_plan)[0].recipe == "paper"
    assert not call.names() & only_plan
    file = tmp_path / "g2l.toml"
    file.write_text('[plan]\nrecipe = "paper"\n[extract-teacher]\nteacher = "uni"\n')
    call = Call.read("extract-teacher", {}, file)
    assert call.resolve_another(PlanConfig, "plan").seed == 7
    assert call.resolve(ExtractConfig, others=only_plan)[0].recipe is None
    assert Call.read("extract-teacher", {"seed": 9}, file).resolve_another(PlanConfig, "plan").seed == 9


def test_a_study_has_its_own_options_and_those_of_its_runs(tmp_path: Path) -> None:
    file, flags = tmp_path / "g2l.toml", {"vary": ["loss=mse,cosine"], "epochs": 4}
    file.write_text('[ablate]\nstores = ["a.zarr", "b.zarr"]\nstudent = "s"\nseeds = 2\nepochs = 3\n')
    call = Call.read("ablate", flags, file)
    study, base, paths, record = call.resolve_study(
        AblateConfig, TrainConfig, "train-student", stores=None, out=tmp_path / "o"
    )
    assert (study.seeds, study.vary, base["epochs"]) == (2, ["loss=mse,cosine"], 4)
    assert base.keys() <= {"student", "epochs", "weights"}  # the rest has its defaults, some of which the store decides
    assert paths == {"out": [tmp_path / "o"], "stores": [Path("a.zarr"), Path("b.zarr")]}
    assert record["stores"] == [str(Path("a.zarr").absolute()), str(Path("b.zarr").absolute())]
    assert (record["lr"], "augment" in record) == (1e-4, False)
    given = call.resolve_study(AblateConfig, TrainConfig, "train-student", stores=[Path("c.zarr")], out=tmp_path / "o")
    assert given[2]["stores"] == [Path("c.zarr")]
    with pytest.raises(ConfigError, match=r"missing: stores. See g2l ablate"):
        Call.read("ablate", {"student": "s"}, None).resolve_study(
            AblateConfig, TrainConfig, "train-student", stores=None, out=tmp_path / "o"
        )


@pytest.mark.parametrize(("command", "config"), [("ablate", AblateConfig), ("curve", CurveConfig)])
def test_a_recipe_is_that_of_the_runs_of_a_study(command: str, config: type[Config], tmp_path: Path) -> None:
    call = Call.read(command, {"student": "s", "recipe": "paper", "batch_size": 8}, None)
    _, base, _, record = call.resolve_study(config, TrainConfig, "train-student", out=tmp_path / "o")
    expected = recipe_values("paper", "train-student") | {"batch_size": 8, "recipe": "paper", "student": "s"}
    assert {name: base[name] for name in expected} == expected
    assert {name: record[name] for name in expected} == expected
    assert record["final_lr"] == 0.0


# --- paths --------------------------------------------------------------------------------------------------


def test_a_path_is_expanded_and_an_output_gets_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usable_path("manifest", "~/m.csv") == tmp_path / "m.csv"
    assert usable_path("out", ".") == (tmp_path / "a" / "b").resolve()
    assert usable_path("out", "..") == (tmp_path / "a").resolve()
    assert usable_path("manifest", "..") == Path("..")  # an input is made nothing beside
    assert usable_path("out", "new/store.zarr") == Path("new/store.zarr")


@pytest.mark.parametrize(("typed", "there"), [(NFC, NFD), (NFD, NFC)])
def test_paths_are_found_however_their_accents_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, there: str
) -> None:
    """Arguments, options, models and the file of --config; an output that is there, and the folder of a new one."""
    monkeypatch.chdir(tmp_path)
    Path(there).mkdir()
    for name in ("m.csv", "w.pt", "store.zarr"):
        Path(there, name).touch()
    Path(there, "g2l.toml").write_text(f'[extract-teacher]\nweights = "{typed}/w.pt"\nteacher = "test_vit"\n')
    call = Call.read("extract-teacher", {"slides_root": Path(typed)}, Path(typed, "g2l.toml"))
    config, paths = call.resolve(ExtractConfig, plan=Path(typed, "m.csv"), out=Path(typed, "store.zarr"))
    assert paths == {"plan": Path(there, "m.csv"), "out": Path(there, "store.zarr")}
    assert (config.weights, config.slides_root) == (Path(there, "w.pt"), Path(there))
    assert call.resolve_another(PlanConfig, "plan").slides_root == Path(there)
    models = {"models": [f"a={typed}", "test_vit"], "features": [f"f={typed}"], "label": typed}
    compared, paths = Call.read("evaluate", models, None).resolve(evaluate_config(), out=Path(typed, "new"))
    assert compared.record()["models"] == [f"a={there}", "test_vit"]
    assert (compared.record()["features"], compared.record()["label"]) == ([f"f={there}"], typed)
    assert paths == {"out": Path(there, "new")}
    assert usable_path("out", f"{typed}/new/{typed}/run.zarr") == Path(there, "new", typed, "run.zarr")
    assert usable_path("out", str(tmp_path / typed / "a" / "b")) == tmp_path / there / "a" / "b"
    config, _ = Call.read("plan", {"overlays": Path(typed, "new", "o")}, None).resolve(PlanConfig)
    assert config.overlays == Path(there, "new", "o")
    assert usable_path("out", f"new/{typed}") == Path("new", typed)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("out", "", r"^--out is empty\. Give a path"),
        ("manifest", "", r"^manifest is empty"),
        ("out", "~nobody-of-this-name/x", r"no such home folder\. For a folder of that name, write \./~nobody"),
    ],
)
def test_a_path_that_cannot_be_meant_is_told(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        usable_path(name, text)


def test_an_empty_path_on_the_command_line_is_not_the_working_folder() -> None:
    assert nonempty_path("a") == Path("a")
    with pytest.raises(typer.BadParameter, match="an empty path"):
        nonempty_path("")


def test_a_path_that_a_record_cannot_hold_is_refused_where_one_is_written() -> None:
    odd = Path("m\udcff.csv")
    require_utf8({"a": "é", "b": ["x", Path("y")]})
    for values in ({"manifest": odd}, {"models": ["x", str(odd)]}):
        with pytest.raises(ConfigError, match="is not UTF-8"):
            require_utf8(values)
    with pytest.raises(ConfigError, match="is not UTF-8"):
        Call.read("plan", {}, None).resolve(PlanConfig, manifest=odd, out=Path("p.h5"))
    _, paths = Call.read("inspect", {}, None).resolve(PlanConfig, path=odd)  # which writes no record
    assert paths == {"path": odd}


# --- two commands' options ----------------------------------------------------------------------------------


def test_missing_arguments_are_named_as_they_are_given() -> None:
    with pytest.raises(ConfigError, match=r"missing: manifest, --out\. See g2l plan --help"):
        Call.read("plan", {}, None).resolve(PlanConfig, manifest=None, out=None)


def test_another_commands_options_come_from_the_call_then_its_table_then_the_other(tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text(
        '[plan]\nmanifest = "m.csv"\nout = "p.h5"\nseed = 1\nmpp = 1.0\npatch_px = 32\n'
        '[extract-teacher]\nteacher = "uni"\nmpp = 0.25\npatch_px = 64\n'
    )
    call = Call.read("extract-teacher", {"patch_px": 128, "batch_size": 4}, file)
    config = call.resolve_another(PlanConfig, "plan")
    assert (config.seed, config.mpp, config.patch_px) == (1, 0.25, 128)
    assert call.names() == {"teacher", "mpp", "patch_px", "batch_size"}
    others = PlanConfig.model_fields.keys() - ExtractConfig.model_fields.keys()
    assert call.resolve(ExtractConfig, others=others)[0].batch_size == 4
    with pytest.raises(ConfigError, match="mpp"):
        call.resolve(ExtractConfig)  # the options of a plan are none of this command's


# --- commands made from configurations ----------------------------------------------------------------------


class Small(Config):
    """Options of a command that there is not."""

    panels: ClassVar[dict[str, str]] = {"quick": "Speed", "colours": "Looks"}

    size: int = option(3, ge=1, description="How large.")
    quick: bool = option(False, description="Whether to hurry.")
    pace: float | None = option(None, description="How fast [as it comes].")
    colours: list[str] | None = option(None, description="Which colours [all].")
    shape: Literal["round", "square"] = option("round", description="Which shape.")


class Further(Config):
    """Options of which one is the other's as well."""

    size: int = option(5, ge=1, description="Never seen.")
    name: str = option(description="What it is called.")


def command(seen: list[tuple[Call, Path | None]]) -> typer.Typer:
    """A command that keeps what it is called with."""
    app = typer.Typer(rich_markup_mode=None)

    @app.command(cls=CommandWithPanels)
    @with_options("plan", Small, Further)
    def verb(
        call: Call, manifest: Path | None = typer.Argument(None), out: Path | None = typer.Option(None, help="Where.")
    ) -> None:
        """Do nothing."""
        seen.append((call, manifest))

    return app


def test_a_command_receives_the_flags_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "g2l.toml"
    file.write_text("[plan]\nsize = 7\n")
    seen: list[tuple[Call, Path | None]] = []
    words = ["m.csv", "--no-quick", "--colours", "red", "--colours", "blue", "--config", str(file)]
    assert CliRunner().invoke(command(seen), words).exit_code == 0
    assert CliRunner().invoke(command(seen), []).exit_code == 0
    (call, manifest), (bare, nothing) = seen
    assert call == Call("plan", {"quick": False, "colours": ["red", "blue"]}, file, {"size": 7})
    assert (manifest, nothing) == (Path("m.csv"), None)
    assert bare == Call("plan", {}, None, {})  # a default is the configuration's, not a flag


def test_the_help_has_every_option_once_under_its_heading_with_its_default() -> None:
    shown = CliRunner().invoke(command([]), ["--help"], env={"COLUMNS": "120"}).stdout
    lines = shown.splitlines()
    headings = [line for line in lines if re.fullmatch(r"[A-Z]\w*:", line)]
    assert headings == ["Arguments:", "Options:", "Speed:", "Looks:"]
    at = {heading: lines.index(heading) for heading in headings}
    for flag, heading, following, default in (
        ("--size", "Options:", "Speed:", "How large. [3]"),
        ("--name", "Options:", "Speed:", "What it is called. [required]"),  # of a configuration without headings
        ("--quick / --no-quick", "Speed:", "Looks:", "Whether to hurry. [off]"),
        ("--pace", "Speed:", "Looks:", "How fast [as it comes]."),
        ("--colours <str>", "Looks:", None, "Which colours [all]."),
        ("--shape [round|square]", "Looks:", None, "Which shape. [round]"),
    ):
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"  {flag} ")]
        assert at[heading] < place < (at[following] if following else len(lines))
        assert lines[place].endswith(f"  {default}")
    assert "Never seen" not in shown
    assert len({line.index(line.split("  ", 2)[2].strip()) for line in lines if line.startswith("  --")}) == 1


def test_no_option_shows_an_empty_default() -> None:
    group = typer.main.get_command(app)
    helps = [param.help or "" for each in getattr(group, "commands").values() for param in each.params]  # noqa: B009
    assert len(helps) > 100
    assert not [text for text in helps if text.endswith("[]")]


def test_an_unknown_option_in_another_command_s_table_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project's file passed `plan`, and days later `train-student` refused it."""
    file = tmp_path / "g2l.toml"
    file.write_text('[plan]\nseed = 3\n[train-student]\nepohcs = 3\nstudent = "x"\nstore = "s.zarr"\nout = "r"\n')
    assert Call.read("plan", {}, file).table == {"seed": 3}
    said = f"warning: --config {file}: [train-student] epohcs: no option of g2l train-student (did you mean epochs?)"
    assert capsys.readouterr().err == f"{said}; it will be refused there\n"


def test_records_of_all_commands_hold_what_these_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "g2l.toml"
    tables = {name: dict.fromkeys(known, "x") for name, known in KNOWN_OPTIONS.items() if name in COMMANDS}
    assert set(tables) == {*COMMANDS} - {"recipes"}  # which has no options of a file
    assert {"manifest", "out", "tile_px"} <= KNOWN_OPTIONS["plan"]
    assert {"plan", "out", "tile_px", "teacher"} <= KNOWN_OPTIONS["extract-teacher"]  # which plans a manifest
    assert {"seeds", "epochs", "out"} <= KNOWN_OPTIONS["ablate"]
    file.write_text(to_toml(tables))
    Call.read("plan", {}, file)
    assert capsys.readouterr().err == ""


def test_a_table_may_hold_what_a_command_takes_and_nothing_else() -> None:
    """So that no option is warned of that the command knows; its parameters are those that typer parses."""
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    taken = {name: {param.name for param in each.params} - {"config_file"} for name, each in commands.items()}
    assert {name: taken[name] for name in KNOWN_OPTIONS if name in COMMANDS} == {
        name: known for name, known in KNOWN_OPTIONS.items() if name in COMMANDS
    }
