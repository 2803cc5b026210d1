"""The figures of studies are drawn, show what they should, and come out the same again."""

from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.study import figures
from pipeline.study.compare import Estimate, Scores, estimate_score
from pipeline.study.figures import CurveAxis, Panel, draw_learning_curves, draw_settings
from pipeline.study.power_law import Extrapolation, extrapolate

NAMES = ["loss=mse", "loss=log-sum alpha=4", "a name that is much too long for the margin of a figure of this width"]


def scores(value: float, seeds: int = 3) -> Scores:
    rng = np.random.default_rng(int(value * 100))
    return Scores(value * 10 + rng.normal(size=(seeds, 6)), np.full(6, 10.0))


def panel(seeds: int = 3) -> Panel:
    made = {name: scores(0.5 + i / 10, seeds) for i, name in enumerate(NAMES)}
    return Panel(
        "R2", {k: estimate_score(s) for k, s in made.items()}, {k: s.by_seed.tolist() for k, s in made.items()}
    )


def test_settings_are_drawn_the_same_again(tmp_path: Path) -> None:
    differences = Panel("less", {NAMES[1]: Estimate(0.1, 0.01, 0.02, 4, 9)}, shown=frozenset(NAMES[1:2]))
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        draw_settings([panel(), differences], NAMES, NAMES[0], path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height > 200


def test_a_difference_that_is_not_shown_looks_otherwise(tmp_path: Path) -> None:
    pictures = []
    for shown in (frozenset[str](), frozenset(NAMES[1:2])):
        differences = Panel("less", {NAMES[1]: Estimate(0.1, 0.01, 0.02, 4, 9)}, shown=shown)
        draw_settings([panel(), differences], NAMES, NAMES[0], tmp_path / "x.png")
        pictures.append((tmp_path / "x.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_one_run_without_intervals_is_drawn(tmp_path: Path) -> None:
    draw_settings([panel(seeds=1)], NAMES, NAMES[0], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def curve_axis(beyond: Extrapolation | None = None) -> CurveAxis:
    points = [(n, scores(0.8 - 0.5 * n**-0.5)) for n in (2, 4, 8, 16)]
    found = extrapolate(points, resamples=100, seed=0)
    runs = [s.by_seed.tolist() for _, s in points]
    return CurveAxis("slides", [n for n, _ in points], [estimate_score(s) for _, s in points], runs, beyond or found)


def test_curves_with_and_without_an_extrapolation_are_drawn(tmp_path: Path) -> None:
    said = Extrapolation(32, "", 0.71, 0.65, 0.75, 0.03, 0.01, 0.05, 0.8, 0.5, 0.5)
    for name, beyond in (("said", said), ("not", Extrapolation(32, "flat"))):
        draw_learning_curves([curve_axis(beyond), curve_axis()], "R2", tmp_path / f"{name}.png")
    assert (tmp_path / "said.png").read_bytes() != (tmp_path / "not.png").read_bytes()


def test_the_legend_of_curves_has_what_is_drawn_only() -> None:
    flat = curve_axis(Extrapolation(32, "flat"))
    said = curve_axis(Extrapolation(32, "", 0.71, 0.65, 0.75, 0.03, 0.01, 0.05, 0.8, 0.5, 0.5))
    mean, law = ["mean, 95 % over seeds and cases", "single runs"], ["fitted law", "extrapolated, 95 %"]
    single = Estimate(0.5, nan, nan, nan, nan)
    bare = replace(flat, estimates=[single] * 4, by_seed=[[]] * 4)
    for curves, words in (([flat], mean), ([flat, said], mean + law), ([said], mean + law), ([bare], ["mean"])):
        assert [handle.get_label() for handle in figures._legend_of_curves(curves)] == words


def test_the_legend_of_settings_has_what_is_drawn_only() -> None:
    def words(*panels: Panel) -> list[object]:
        return [handle.get_label() for handle in figures._legend_of_settings(panels, NAMES)]

    intervals = ["95 %, seeds", "95 %, seeds and cases"]
    assert words(panel()) == ["mean", "single runs", *intervals]
    difference = Panel("less", {NAMES[1]: Estimate(0.1, 0.01, 0.02, 4, 9)}, shown=frozenset())
    assert words(difference) == ["difference not shown", *intervals]
    assert words(panel(), difference) == ["mean", "difference not shown", "single runs", *intervals]
    assert words(panel(), replace(difference, shown=frozenset(NAMES))) == ["mean", "single runs", *intervals]
    assert words(panel(seeds=1)) == ["mean", "single runs"]
    assert words(replace(difference, estimates={"another": difference.estimates[NAMES[1]]})) == []
