"""The page of a report: every text escaped, numbers as they should be read, nothing fetched; and the JSON beside it."""

import base64
import itertools
import json
import re
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reports import AFTER, BEFORE, DASH, HOSTILE, MINUS, MODELS, TEACHER, sample_report

from pipeline.report.cells import shown_column
from pipeline.report.content import Column, Exclusion, Figure, Interval, Report, ReportModel, Score, Section, Table
from pipeline.report.page import MAX_EXCLUSIONS, flat, render_page, write_report

VOID = {"meta", "link", "img", "br"}


class Tree(HTMLParser):
    """Elements with their attributes and all text, from a strict reading: what is opened is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, str]:
    """The hostile sample report, its folder and its page."""
    folder = tmp_path_factory.mktemp("report")
    report, figures = sample_report(folder)
    write_report(report, folder, figures)
    return report, folder, (folder / "report.html").read_text("utf-8")


def page_of(*sections: Section, models: tuple[ReportModel, ...] = MODELS[:2], folder: Path = Path()) -> str:
    return render_page(Report("A title", models, TEACHER, sections, {}, {}), folder)


def section(**parts: object) -> Section:
    values: dict[str, object] = {"key": "k", "title": "Part", "what": "What.", "basis": {}, "tables": []}
    return Section(**(values | parts))  # type: ignore[arg-type]


def test_the_page_holds_everything_and_asks_for_nothing(sample: tuple[Report, Path, str]) -> None:
    tree = Tree(sample[2])
    assert not tree.all("script")
    assert not [name for _, attributes in tree.elements for name in attributes if name.startswith("on")]
    sources = [attributes["src"] or "" for attributes in tree.all("img")]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert base64.b64decode(sources[0].split(",")[1]) == (sample[1] / "score_size.png").read_bytes()
    links = [attributes["href"] or "" for tag in ("a", "link") for attributes in tree.all(tag)]
    assert all(link.startswith("#") or link == "data:," for link in links)
    style = re.search(r"<style>(.*?)</style>", sample[2], re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_policy_forbids_all_but_inline_style_and_pictures_of_the_page(sample: tuple[Report, Path, str]) -> None:
    (policy,) = [m["content"] for m in Tree(sample[2]).all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def test_text_of_files_is_text_wherever_it_stands(sample: tuple[Report, Path, str]) -> None:
    page = sample[2]
    texts = "".join(Tree(page).texts)
    for label in HOSTILE:
        assert label.replace("\u202e", "\N{REPLACEMENT CHARACTER}") in texts
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "49" not in "".join(re.findall(r"7\*7|quoted.{0,40}49", page))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.text(min_size=1, max_size=30))
def test_any_text_makes_a_page_of_the_same_elements(text: str) -> None:
    def build(words: str) -> Tree:
        table = Table(words, [Column(words, words), Column("x")], [[words, 1.0]], note=words)
        model = ReportModel(words, words, {words: words}, 1)
        part = section(
            title=words,
            what=words,
            basis={words: 1},
            tables=[table],
            settings={words: words},
            source={words: words},
            exclusions=[Exclusion(words, words)],
            notes=[words],
            scores=[Score(words, {words: Interval(1, 0, 2)})],
        )
        report = Report(words, [model], words, [part], {words: words}, {words: words, "versions": {words: words}})
        page = render_page(report, Path())
        page.encode("utf-8")
        return Tree(page)

    assert [tag for tag, _ in build(text).elements] == [tag for tag, _ in build("plain").elements]


def test_headings_are_in_order_and_tables_have_headers(sample: tuple[Report, Path, str]) -> None:
    tree = Tree(sample[2])
    levels = [int(tag[1]) for tag, _ in tree.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row", "colgroup") for attributes in tree.all("th"))
    assert tree.all("html")[0]["lang"] == "en"
    assert all(attributes["alt"] for attributes in tree.all("img"))
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for _, attributes in tree.elements if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)


def test_ink_is_dark_enough(sample: tuple[Report, Path, str]) -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    found = dict(re.findall(r"--(ink|quiet|accent|tint): (#[0-9a-f]{6})", sample[2]))
    assert found.keys() == {"ink", "quiet", "accent", "tint"}
    for name in ("ink", "quiet", "accent"):
        for paper in ("#ffffff", found["tint"]):
            assert (luminance(paper) + 0.05) / (luminance(found[name]) + 0.05) >= 4.5


def test_the_glance_has_a_row_a_model_and_all_headline_scores(sample: tuple[Report, Path, str]) -> None:
    texts = "".join(Tree(sample[2]).texts)
    glance = texts[texts.index("At a glance") : texts.index("Small numbers below")]
    for label in (TEACHER, AFTER, "1.13 B", "304 M", "27% of reference", "TP53, AUROC", f"times faster than {TEACHER}"):
        assert label in glance
    assert f"{AFTER}, the student after distillation, has 27% of its parameters." in texts


def glance_of(page: str) -> list[list[str]]:
    """Rows of the first table, each cell's texts joined by a bar."""
    table = page[page.index("<table") : page.index("</table>")]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [["|".join(filter(None, re.split(r"(?:<[^>]*>|\s*\n\s*)+", cell))) for cell in row] for row in cells]


def known_scores(count: int) -> list[Score]:
    values = {TEACHER: Interval(0.9, 0.85, 0.95), BEFORE: Interval(0.888, 0.83, 0.94)}
    difference = {BEFORE: Interval(-0.012, -0.031, 0.0102)}
    return [Score(f"score {i}", values, 0.5, difference) for i in range(count)]


def test_the_glance_compares_each_model_with_the_reference() -> None:
    page = page_of(section(scores=known_scores(2)))
    assert glance_of(page) == [
        ["score", f"{TEACHER}|teacher", f"{BEFORE}|student before distillation"],
        ["parameters", "1.13 B|100% of reference", "304 M|27% of reference"],
        *(
            [f"score {i}|Part", f"0.900|0.85{DASH}0.95", f"0.888|0.83{DASH}0.94|{MINUS}0.012 ({MINUS}0.03 to 0.01)"]
            for i in range(2)
        ),
    ]
    assert f"difference from {TEACHER}" in page
    assert "does not show that the two are equal either" in page


def test_a_small_student_s_share_of_a_large_teacher_is_not_0() -> None:
    small = ReportModel(AFTER, "student after distillation", {}, 600_000)
    page = page_of(section(scores=known_scores(1)), models=(MODELS[0], small))
    assert f"{AFTER}, the student after distillation, has 0.053% of its parameters." in page
    assert "0.053% of reference" in page


@pytest.mark.parametrize(
    ("count", "words"),
    [(999_700, "1 M"), (999_400, "999 K"), (999_800_000, "1 B"), (1_134_774_272, "1.13 B"), (7, "7")],
)
def test_numbers_of_parameters_have_no_exponent(count: int, words: str) -> None:
    page = page_of(section(scores=known_scores(1)), models=(ReportModel(TEACHER, "", {}, count),))
    assert glance_of(page)[2][1].split("|")[0] == words


def test_differences_from_another_reference_than_the_report_s_say_from_which() -> None:
    """Such as those of features beside models, which are compared among themselves."""
    values = {"CLAM": Interval(0.7, nan, nan), "UNI": Interval(0.8, nan, nan)}
    of_features = Score("AUROC", values, None, {"UNI": Interval(0.1, 0.05, 0.15)}, reference="CLAM")
    page = page_of(section(scores=[*known_scores(1), of_features]))
    assert f"the difference from {TEACHER} in score 0, and from CLAM in AUROC, with" in page
    page = page_of(section(scores=[of_features]))
    assert "the difference from CLAM, with" in page
    assert f"difference from {TEACHER}" not in page


def test_a_glance_of_more_models_than_scores_has_a_row_a_model() -> None:
    rows = glance_of(page_of(section(scores=known_scores(1))))
    assert rows[:2] == [["", "", "Part"], ["model", "parameters", "score 0"]]
    assert rows[3][2] == f"0.888|0.83{DASH}0.94|{MINUS}0.012 ({MINUS}0.03 to 0.01)"


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Interval(0.012, 0.002, 0.03), "+0.012 (0.002 to 0.030)"),
        (Interval(-1e-17, -1e-17, 0.0), "0.000 (0.000 to 0.000)"),
        (Interval(0.0002, -0.05, 0.05), f"0.000 ({MINUS}0.05 to 0.05)"),
        (Interval(-0.5, nan, nan), f"{MINUS}0.500"),
        (Interval(nan, nan, nan), None),
    ],
)
def test_differences_are_signed(difference: Interval, words: str | None) -> None:
    values = {label: Interval(0.5, nan, nan) for label in (TEACHER, BEFORE)}
    rows = glance_of(page_of(section(scores=[Score("s", values, None, {BEFORE: difference})])))
    assert rows[3][2].split("|")[1:] == ([words] if words else [])


def test_without_differences_nothing_is_said_of_them() -> None:
    scores = [Score("s", {TEACHER: Interval(0.9, 0.8, 1.0)})]
    assert "difference" not in "".join(Tree(page_of(section(scores=scores))).texts)


@pytest.mark.parametrize("count", [1, 4])
def test_a_label_that_is_no_model_is_in_the_glance_without_parameters(count: int) -> None:
    scores = [Score(f"s{i}", {"CLAM features": Interval(0.77, 0.7, 0.8)}) for i in range(count)]
    rows = glance_of(page_of(section(scores=scores)))
    if count == 1:
        assert rows[-1] == ["CLAM features", "\N{EM DASH}", f"0.770|0.70{DASH}0.80"]
    else:
        assert [row[-1] for row in rows] == ["CLAM features", "\N{EM DASH}", *[f"0.770|0.70{DASH}0.80"] * 4]


def test_bold_is_explained_only_where_it_is() -> None:
    plain = Table("t", [Column("m"), Column("x")], [["a", 0.5], ["b", 0.6]])
    bold = Table("t", [Column("m"), Column("x", better="higher")], [["a", 0.5], ["b", 0.6]])
    for table, count in ((plain, 0), (bold, 1)):
        page = page_of(section(tables=[table], scores=known_scores(3)))
        assert page.count("is set in bold") == count
        assert page.count("<strong>0.600</strong>") == count


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    cells = [np.float32(0.5), np.int64(1200), np.float64("inf")]
    assert [cell.text for cell in shown_column(Column("c"), cells)] == ["0.500", "1,200", ""]
    table = Table("t", [Column("c")], [[cell] for cell in cells])
    write_report(Report("r", MODELS[:1], TEACHER, [section(tables=[table])], {"p": tmp_path}, {"x": nan}), tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    assert [row["c"] for row in record["sections"]["k"]["tables"][0]["rows"]] == [0.5, 1200, None]
    assert (record["run"]["x"], record["settings"]["p"]) == (None, str(tmp_path))


def test_a_dash_says_that_the_number_is_not_defined() -> None:
    tree = Tree(page_of(section(tables=[Table("t", [Column("m"), Column("x")], [["a", None], ["b", 1.0]])])))
    assert {"missing"} == {attributes.get("class") for attributes in tree.all("span") if attributes.get("title")}
    assert [attributes["title"] for attributes in tree.all("span") if attributes.get("title")][-1] == "not defined"


def test_what_a_section_rests_on_and_what_its_columns_are_is_said() -> None:
    table = Table("t", [Column("m"), Column("AUROC", "Area under the curve.")], [["a", 0.5]], note="A note.")
    page = page_of(section(tables=[table], basis={"patches": 12345, "cases": 198}, notes=["Three were dropped."]))
    texts = "".join(Tree(page).texts)
    for words in ("Rests on 12,345 patches, 198 cases.", "Area under the curve.", "A note.", "Three were dropped."):
        assert words in texts


def test_exclusions_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    excluded = [Exclusion(f"file {i:04d}.png", "unreadable") for i in range(1234)]
    report = Report("r", MODELS, TEACHER, [section(exclusions=excluded)], {}, {})
    write_report(report, tmp_path)
    texts = "".join(Tree((tmp_path / "report.html").read_text()).texts)
    assert "1,234 left out" in texts
    assert len(re.findall(r"file \d{4}\.png", texts)) == MAX_EXCLUSIONS
    assert "1,034 more" in texts
    assert len(json.loads((tmp_path / "report.json").read_text())["sections"]["k"]["exclusions"]) == 1234


def test_an_exclusion_counts_what_it_stands_for(tmp_path: Path) -> None:
    excluded = [Exclusion(f"{i} patches", "unreadable", count=i) for i in range(1, MAX_EXCLUSIONS + 3)]
    model = ReportModel("m", "", {"source": "timm:x", "mpp": None}, 5)
    write_report(Report("r", [model], "m", [section(exclusions=excluded)], {}, {}), tmp_path)
    texts = "".join(Tree((tmp_path / "report.html").read_text()).texts)
    assert f"{sum(range(MAX_EXCLUSIONS + 3)):,} left out" in texts
    assert f"{2 * MAX_EXCLUSIONS + 3:,} more" in texts
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["sections"]["k"]["exclusions"][:2] == [
        {"what": "1 patches", "why": "unreadable"},
        {"what": "2 patches", "why": "unreadable", "count": 2},
    ]
    assert record["models"][0]["mpp"] is None
    assert "timm:x" in texts
    assert "mpp" not in texts


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_of_few_models_and_empty_sections(count: int) -> None:
    empty = section(tables=[Table("nothing", [Column("m")], [])])
    texts = "".join(Tree(page_of(empty, section(), models=MODELS[:count])).texts)
    assert "No rows." in texts
    assert "No numbers." in texts
    assert ("of reference" in texts) == (count > 1)


def test_a_report_of_nothing() -> None:
    assert "nothing was measured" in "".join(Tree(page_of(models=MODELS[:1])).texts)


def test_a_score_that_a_model_has_not_is_a_dash_and_infinity_no_number() -> None:
    scores = [Score("s", {TEACHER: Interval(inf, nan, nan)})]
    tree = Tree(page_of(section(scores=scores)))
    assert len([attributes for attributes in tree.all("span") if attributes.get("class") == "missing"]) == 2


def test_json_has_all_digits_and_no_nan(sample: tuple[Report, Path, str]) -> None:
    text = (sample[1] / "report.json").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    row = record["sections"]["fidelity"]["tables"][0]["rows"][0]
    assert row["R2 linear map"]["value"] == sample[0].sections[0].scores[0].values[TEACHER].value
    assert record["sections"]["fidelity"]["tables"][1]["rows"][2]["cosine"] is None
    assert record["figures"] == ["score_size.png"]


def test_a_missing_picture_leaves_no_page_behind(tmp_path: Path) -> None:
    report = Report("r", MODELS, TEACHER, [section(figures=[Figure("gone.png", "c", "a")])], {}, {})
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        write_report(report, tmp_path)
    (tmp_path / "gone.png").write_text("no picture")
    with pytest.raises(OSError, match="cannot identify"):
        write_report(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"gone.png"}


@pytest.mark.slow
def test_the_same_report_gives_the_same_page(sample: tuple[Report, Path, str], tmp_path: Path) -> None:
    report, figures = sample_report(tmp_path)
    assert render_page(report, tmp_path, figures) == sample[2]


def test_settings_are_flattened_by_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": {"d": "x"}}, "e": [1, None], "f": {}}) == [
        ("a.b", "1"),
        ("a.c.d", "x"),
        ("e", "[1, null]"),
        ("f", "{}"),
    ]
