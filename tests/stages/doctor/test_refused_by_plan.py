"""What `plan` refuses before it opens a slide for its patches is one finding of a doctor, in the words of `plan`."""

from pathlib import Path
from typing import Any

import pytest
from support.annotated import write_geojson
from support.slides import make_slide

from pipeline.base import images
from pipeline.base.errors import G2LError
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.config.plan import PlanConfig
from stages.doctor import work
from stages.doctor.doctor import doctor
from stages.doctor.estimate import MEND_PLAN, TriedSlides
from stages.doctor.findings import Finding
from stages.plan import check_cohort
from stages.planning.write import write_new_plan


@pytest.fixture(scope="module")
def annotated(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two slides, the first with annotations of the classes tumour and necrosis."""
    folder = tmp_path_factory.mktemp("annotated")
    write_geojson(folder / "a.geojson", tumour=(0, 0, 800, 1280), necrosis=(800, 0, 100, 100))
    make_slide(folder / "b.tif", width=1280, height=1280, mpp=0.5, downsamples=(1, 4))
    rows = f"a,{manifest.with_name('a.tif')},A,a.geojson\nb,b.tif,B,\n"
    (folder / "m.csv").write_text(f"slide_id,path,case_id,annotations\n{rows}")
    return folder / "m.csv"


def look(path: Path, **options: Any) -> list[Finding]:
    config = PlanConfig.build({"patch_px": 64} | options)
    return list(work.look_at_manifest(path, path.parent, None, TriedSlides.by(config)))


def refusal_of_plan(path: Path, folder: Path, **options: Any) -> str:
    """What `plan` says, which leaves nothing."""
    with pytest.raises(G2LError) as refused:
        write_new_plan(path, PlanConfig.build({"patch_px": 64} | options), folder / "p.h5")
    return str(refused.value)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "include": ({"include": ["tumor"]}, "--include tumor: no slide has this class (did you mean tumour?)"),
    "exclude": ({"exclude": ["necrossis"]}, "--exclude necrossis: no slide has this class (did you mean necrosis?)"),
    "quota": (
        {"sample": "class", "class_quota": ["tumor=2"]},
        "--class-quota tumor: no slide has this class (did you mean tumour?)",
    ),
    "encoder": ({"sample": "cluster", "sampler_encoder": "lcnet_050@absent.safetensors"}, "absent.safetensors"),
    "size": ({"sample": "cluster", "sampler_encoder": "no_such@scratch"}, "no_such"),
    "list": ({"exclude_cases": ["absent.txt"]}, "absent.txt"),
    "tissue": ({"tissue_from": Path("absent")}, "--tissue-from absent is not a folder that can be read"),
}


@pytest.mark.parametrize(("options", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_plan_refuses_is_one_trouble(
    annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = refusal_of_plan(annotated, tmp_path, **options)
    assert words in refused
    assert [each for each in look(annotated, **options) if each.level == "trouble"] == [
        Finding("trouble", "plan", refused, MEND_PLAN)
    ]
    assert not list(tmp_path.iterdir())


def test_a_sample_by_class_needs_annotations(manifest: Path, tmp_path: Path) -> None:
    refused = refusal_of_plan(manifest, tmp_path, sample="class")
    assert refused.startswith("--sample class: no row of the manifest has annotations")
    assert look(manifest, sample="class")[-1] == Finding("trouble", "plan", refused, MEND_PLAN)


def test_the_rows_are_those_that_plan_takes(annotated: Path, tmp_path: Path) -> None:
    """A class of which the only slide is excluded."""
    (tmp_path / "listed.txt").write_text("A\n")
    options = {"include": ["tumour"], "exclude_cases": [str(tmp_path / "listed.txt")]}
    refused = refusal_of_plan(annotated, tmp_path, **options)
    assert "no row of the manifest has annotations" in refused
    assert look(annotated, **options)[-1] == Finding("trouble", "plan", refused, MEND_PLAN)


def test_a_slide_in_a_bucket_needs_a_folder_for_its_copy(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("slide_id,path\na,s3://bucket/a.svs\n")
    manifest = parse_manifest(tmp_path / "m.csv", None)
    with pytest.raises(G2LError, match="--stage-dir") as refused:
        check_cohort(manifest, PlanConfig(), 1)
    found = work.rows_that_plan_takes(manifest, PlanConfig())
    assert found == ([], [Finding("trouble", "plan", str(refused.value), MEND_PLAN)])


def test_a_torch_that_cannot_reduce_patches(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TORCH_WITH_LANCZOS", (99, 0))
    refused = refusal_of_plan(manifest, tmp_path, resampling="lanczos-torch")
    assert look(manifest, resampling="lanczos-torch")[-1] == Finding("trouble", "plan", refused, MEND_PLAN)


@pytest.mark.parametrize("option", ["overlays", "tissue_geojson"])
def test_a_folder_that_cannot_be_made(manifest: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    options = {option: tmp_path / "file"}
    refused = refusal_of_plan(manifest, tmp_path, **options)
    assert look(manifest, **options)[-1] == Finding("trouble", "plan", refused, MEND_PLAN)


def test_a_budget_that_cannot_be_priced_is_told_beside_it(annotated: Path, tmp_path: Path) -> None:
    budget = {"budget": "1h", "rate_from": tmp_path / "absent.zarr"}
    refused = refusal_of_plan(annotated, tmp_path, include=["tumor"], **budget)
    found = {each.subject: each for each in look(annotated, include=["tumor"], **budget) if each.level == "trouble"}
    assert found.keys() == {"budget", "plan"}
    assert found["budget"].words == refused


def test_options_that_plan_takes_are_good(annotated: Path, tmp_path: Path) -> None:
    """Classes that are there, and new folders, of which nothing is left; a note of `plan` is one to note."""
    options = {"exclude": ["necrosis"], "sample": "class", "class_quota": ["tumour=2"]}
    folders = {"overlays": tmp_path / "new" / "pictures", "tissue_geojson": tmp_path / "new" / "tissue"}
    found = look(annotated, **options, **folders)
    assert {"a", "b", "estimate"} <= {each.subject for each in found}
    assert not [each for each in found if each.level == "trouble" or each.subject == "plan"]
    assert not list(tmp_path.iterdir())


def test_notes_of_plan_are_told(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text("{")
    (tmp_path / "listed.txt").write_text("nobody\n")
    found = look(manifest, tissue_from=tmp_path, use_rule=["pen"], exclude_cases=[str(tmp_path / "listed.txt")])
    (note,) = (each for each in found if each.subject == "plan")
    assert (note.level, note.words) == (
        "note",
        "--tissue-from takes the tissue from files, so --use-rule and --skip-rule change nothing",
    )
    assert [each.level for each in found if each.subject == "excluded"].count("note") == 1


def test_the_exit_code_is_that_of_trouble(annotated: Path, tmp_path: Path) -> None:
    planned = TriedSlides.by(PlanConfig.build({"include": ["tumor"]}))
    text, code = doctor(annotated, tmp_path, None, planned)
    assert code == 1
    assert text.count("no slide has this class") == 1
    assert "comes from the table [plan] of --config" in text
