"""What an earlier reproduction left: out of the way while another is made, back if that fails, gone if it does not."""

from pathlib import Path

import pytest

from stages.studies.outdated import paper_tables_of, put_aside, results_of


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in (
        *("reproduce.toml", "table.csv", "comparison.csv", "figure_1.png", "table_a.csv", "table_a.png"),
        *("images/1.png", "report/report.json", "report/evaluate.toml", "report/embeddings/x.npy", "notes.txt"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"first {name}")
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_values_are_told_from_other_files(out: Path) -> None:
    assert [path.name for path in paper_tables_of(out)] == ["table_a.csv", "table_a.png"]
    assert {path.name for path in results_of(out)} == {"comparison.csv", "figure_1.png", "table_a.csv", "table_a.png"}


@pytest.mark.parametrize("with_images", [False, True])
def test_what_succeeds_replaces_it(out: Path, with_images: bool) -> None:
    with put_aside(out, with_images=with_images):
        left = {"notes.txt", "report/embeddings/x.npy", "report/evaluate.toml"}
        left |= set() if with_images else {"images/1.png"}
        assert {name for name in files(out) if "g2l-part" not in name} == left
        (out / "table.csv").write_text("second")
    assert files(out).keys() == left | {"table.csv"}
    assert files(out)["table.csv"] == "second"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full")])
def test_what_fails_leaves_it_as_it_was(out: Path, error: BaseException) -> None:
    before = files(out)

    def fail() -> None:
        with put_aside(out, with_images=True):
            (out / "images").mkdir()
            for name in ("images/2.png", "table.csv", "table_b.csv", "report/report.json", "report/embeddings/y.npy"):
                (out / name).write_text("second")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert files(out) == before | {"report/embeddings/y.npy": "second"}


def test_a_folder_without_any_of_it_is_no_fault(tmp_path: Path) -> None:
    with put_aside(tmp_path, with_images=True):
        (tmp_path / "table.csv").write_text("first")
    assert files(tmp_path) == {"table.csv": "first"}
