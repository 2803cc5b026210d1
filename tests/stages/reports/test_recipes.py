"""The table of recipes names every option that one sets, with its values and sources."""

from support.commands import call_g2l

from pipeline.config.recipes import RECIPES
from stages.reports.recipes import COMMAND_CONFIGS, recipes_table


def test_every_option_of_every_recipe_has_a_row() -> None:
    rows = [line.split() for line in recipes_table().splitlines()]
    listed = {(row[0], row[1]) for row in rows if len(row) > 1 and row[0] in COMMAND_CONFIGS}
    set_by_one = {
        (command, "--" + name.replace("_", "-"))
        for recipe in RECIPES.values()
        for command, options in recipe.items()
        for name in options
    }
    assert listed == set_by_one
    assert {command for command, _ in set_by_one} <= COMMAND_CONFIGS.keys()


def test_a_row_has_the_values_and_the_source() -> None:
    rows = {line.split()[1]: line for line in recipes_table().splitlines() if "  --" in line}
    words = {option: " ".join(line.split()[2:]) for option, line in rows.items()}
    assert words["--batch-size"].startswith("256 32 the paper, as we read it: over all GPUs;")
    assert words["--early-stop"].startswith("off consecutive the paper, as we read it: ")
    assert words["--lr"] == "0.0001 0.0001 the paper"
    assert rows["--warmup"].split()[2:6] == ["0.05", "0", "our", "choice:"]


def test_it_says_how_soon_the_early_stop_comes() -> None:
    assert "after about 4,194 steps" in recipes_table()
    assert "28,125 steps an epoch, 281,250 in all" in recipes_table()


def test_the_command_shows_it() -> None:
    code, said, errors = call_g2l("recipes")
    assert (code, errors) == (0, "")
    assert said == recipes_table() + "\n"
