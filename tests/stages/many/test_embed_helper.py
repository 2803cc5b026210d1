"""`g2l embed` in several processes: the files of one, to the byte; failures and counts are those of all."""

import json
import shutil
from pathlib import Path

import pytest
from support.commands import leftovers, succeed
from support.extraction import TEACHER, write_cohort, write_teacher
from support.launched import MemoryStore, beating_in_a_thread, ended, kill_worker, start_torchrun
from support.slides import damage_tiles, make_slide, not_a_slide
from support.staging import watching

from pipeline.base.errors import ConfigError, EmbedError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.config.tools import EmbedConfig
from stages.embed import embed
from stages.many.embed_helper import help_embed
from stages.reports.embed import Tally

OPTIONS = {"layout": "pt", "patch_px": 64, "mpp": 0.5, "min_tissue": 0.0, "device": "cpu", "workers": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four slides, weights, and `one`, what one process makes; shared, not changed."""
    folder = tmp_path_factory.mktemp("made")
    write_cohort(folder / "slides", 4)
    (folder / "slides" / "manifest.csv").unlink()
    write_teacher(folder / "t.safetensors")
    run(folder, folder / "one")
    return folder


def model_of(made: Path) -> str:
    return f"tiny={TEACHER}@{made / 't.safetensors'}"


def run(made: Path, out: Path, group: LaunchedGroup | None = None, slides: Path | None = None, **more: object) -> Tally:
    config = EmbedConfig.build(OPTIONS | more)
    return embed(model_of(made), slides or made / "slides", out, config, options={}, group=group)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of an output but the record of its options, which says where it is; without that place in the list of
    slides that slide2vec reads.
    """
    place = f"{folder}/".encode()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(place, b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "embed.toml"
    }


def words(made: Path, out: Path, slides: Path | None = None) -> list[object]:
    flags = [word for name, value in OPTIONS.items() for word in ("--" + name.replace("_", "-"), value)]
    return ["embed", model_of(made), slides or made / "slides", "--out", out, *flags]


@pytest.mark.slow
def test_with_torchrun(made: Path, tmp_path: Path) -> None:
    """One slide fails: no crash, and the report names it."""
    slides = shutil.copytree(made / "slides", tmp_path / "slides")
    not_a_slide(slides / "no.svs")
    run(made, tmp_path / "one", slides=slides)
    code, out, err = ended(start_torchrun(*words(made, tmp_path / "s", slides), processes=3))
    assert code == 0, out + err
    assert files_of(tmp_path / "s") == files_of(tmp_path / "one")
    assert "failed slides: 1" in out
    assert out.count("dimensions (slides: 4)") == 1
    assert leftovers(tmp_path) == []
    (slides / "no.svs").unlink()
    code, out, err = ended(start_torchrun(*words(made, tmp_path / "s", slides)))
    assert (code, "slides finished before: 4" in out) == (0, True), out + err


@pytest.mark.slow
def test_a_killed_process_is_replaced(tmp_path: Path, made: Path) -> None:
    """With slides that are staged."""
    slides = write_cohort(tmp_path / "many", 12, width=1024, height=1024).parent
    (slides / "manifest.csv").unlink()
    run(made, tmp_path / "one", slides=slides)
    most_bytes = 4 * max(path.stat().st_size for path in slides.glob("*.svs"))
    staging = ["--stage-dir", tmp_path / "stage", "--stage-gb", most_bytes / 1e9]
    call = [*words(made, tmp_path / "s", slides), *staging]
    launcher = start_torchrun(*call, launcher=("--standalone", "--max-restarts", 2))
    embeddings = tmp_path / "s" / "tile_embeddings"
    with watching(tmp_path / "stage") as seen:
        kill_worker(launcher, 1, lambda: len(list(embeddings.glob("*.pt"))) >= 1)
        code, out, err = ended(launcher)
    assert 0 < max(seen) <= most_bytes
    assert list((tmp_path / "stage").iterdir()) == []
    assert code == 0, out + err
    assert files_of(tmp_path / "s") == files_of(tmp_path / "one")
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_leader_and_then_a_helper(made: Path, tmp_path: Path) -> None:
    store, out = MemoryStore(), tmp_path / "s"
    leader = LaunchedGroup(store, 0, 2)
    with leader.leading():
        tally = run(made, out, leader)
    assert files_of(out) == files_of(made / "one")
    assert (tally.num_slides, tally.num_before, tally.new_patches) == (4, 0, tally.num_patches)

    gone = next((out / "tile_embeddings").glob("s2*.pt"))
    gone.unlink()
    (out / "tiles" / "s2.coordinates.npz").unlink(missing_ok=True)
    beating = LaunchedGroup(store, 0, 2)
    beating.call(json.loads(store.get("call/1/1")))
    del store.values["done/2"], store.values["claim/2"], store.values["report/2"]
    with beating_in_a_thread(beating):
        help_embed(LaunchedGroup(store, 1, 2), model_of(made), made / "slides", out, EmbedConfig.build(OPTIONS))
    assert files_of(out) == files_of(made / "one")
    assert json.loads(store.get("report/2"))["slide_id"] == "s2"
    assert leftovers(tmp_path) == []


def test_a_helper_that_is_replaced_alone_does_not_speak_for_a_slide_of_its_predecessor(
    made: Path, tmp_path: Path
) -> None:
    """The predecessor had written the slide, and was killed before it said so; the leader goes by the slide's mark."""
    store, out = MemoryStore(), tmp_path / "s"
    leader = LaunchedGroup(store, 0, 2)
    with leader.leading():
        run(made, out, leader)
    beating = LaunchedGroup(store, 0, 2)
    beating.call(json.loads(store.get("call/1/1")))
    store.set("claim/2", str(LaunchedGroup(store, 1, 2).member))
    del store.values["done/2"], store.values["report/2"]
    with beating_in_a_thread(beating):
        help_embed(LaunchedGroup(store, 1, 2), model_of(made), made / "slides", out, EmbedConfig.build(OPTIONS))
    assert store.check(["done/2"])
    assert not store.check(["report/2"])


def test_what_a_helper_finds_must_be_what_the_leader_found(made: Path, tmp_path: Path) -> None:
    store, out = MemoryStore(), shutil.copytree(made / "one", tmp_path / "s")
    with LaunchedGroup(store, 0, 2).leading():
        run(made, out, LaunchedGroup(MemoryStore(), 0, 2))
    found = MemoryStore()
    leading = LaunchedGroup(found, 0, 2)
    with leading.leading():
        run(made, out, leading)
    beating = LaunchedGroup(found, 0, 2)
    beating.call(json.loads(found.get("call/1/1")))
    config = EmbedConfig.build(OPTIONS)
    fewer = shutil.copytree(made / "slides", tmp_path / "fewer")
    (fewer / "s0.svs").unlink()
    other = write_teacher(tmp_path / "other.safetensors", seed=4)
    with beating_in_a_thread(beating):
        with pytest.raises(ConfigError, match="other slides are here"):
            help_embed(LaunchedGroup(found, 1, 2), model_of(made), fewer, out, config)
        with pytest.raises(EmbedError, match="weights_sha256"):
            help_embed(LaunchedGroup(found, 1, 2), f"tiny={TEACHER}@{other}", made / "slides", out, config)


def test_the_command_alone_is_as_ever(made: Path, tmp_path: Path) -> None:
    assert "dimensions (slides: 4)" in succeed(*words(made, tmp_path / "s"))
    assert files_of(tmp_path / "s") == files_of(made / "one")


@pytest.mark.slow
def test_failures_are_listed_while_the_slides_are_done(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill of all processes loses none; a leader that follows one in the same launch notes what that one had not."""
    slides, out = shutil.copytree(made / "slides", tmp_path / "slides"), tmp_path / "s"
    whole = make_slide(tmp_path / "whole.svs", width=1024, height=1024, mpp=0.5, seed=1)
    damage_tiles(whole, [(1, 1)], how="garbage", out=slides / "a.svs")
    not_a_slide(slides / "b.svs")
    run(made, tmp_path / "one", slides=slides)
    listed = (tmp_path / "one" / "failures.csv").read_bytes()
    assert listed.count(b"UNREADABLE") > 1

    class KilledError(Exception):
        """In the place of a kill."""

    def kill(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr("stages.embed.count_slide", kill)  # what the leader does first once all slides are done
    store = MemoryStore()
    leader = LaunchedGroup(store, 0, 2)
    with pytest.raises(KilledError), leader.leading():
        run(made, out, leader, slides)
    assert (out / "failures.csv").read_bytes() == listed

    (out / "failures.csv").unlink()
    next((out / "tile_embeddings").glob("s3*.pt")).unlink()
    del store.values["claim/5"], store.values["done/5"]
    leader = LaunchedGroup(store, 0, 2)
    with pytest.raises(KilledError), leader.leading():
        run(made, out, leader, slides)
    assert (out / "failures.csv").read_bytes() == listed


@pytest.mark.slow
def test_slides_are_tried_again_by_leader_and_helper(made: Path, tmp_path: Path) -> None:
    """Two slides have a damaged tile; one is mended. What is written, and listed as failed, is as of one process."""
    slides, whole = tmp_path / "slides", make_slide(tmp_path / "whole.svs", width=512, height=512, mpp=0.5, seed=1)
    slides.mkdir()
    for name in ("a.svs", "b.svs"):
        damage_tiles(whole, [(1, 1)], how="garbage", out=slides / name)
    run(made, tmp_path / "before", slides=slides)
    shutil.copy(whole, slides / "b.svs")
    one, out = (shutil.copytree(tmp_path / "before", tmp_path / name) for name in ("one", "s"))
    alone = run(made, one, slides=slides, retry_failures=True)
    leader = LaunchedGroup(store := MemoryStore(), 0, 2)
    with leader.leading():
        tally = run(made, out, leader, slides, retry_failures=True, stage_dir=tmp_path / "stage")
    assert files_of(out) == files_of(one) != files_of(tmp_path / "before")
    assert (tally.num_patches, tally.failed_patches) == (alone.num_patches, alone.failed_patches)
    assert tally.failed_patches == len((out / "failures.csv").read_text().splitlines()) - 1 > 0

    later = shutil.copytree(tmp_path / "before", tmp_path / "later")
    beating = LaunchedGroup(store, 0, 2)
    beating.call(json.loads(store.get("call/1/1")))
    del store.values["done/1"], store.values["claim/1"]
    config = EmbedConfig.build(OPTIONS | {"retry_failures": True, "stage_dir": tmp_path / "stage"})
    with beating_in_a_thread(beating):
        help_embed(LaunchedGroup(store, 1, 2), model_of(made), slides, later, config)
    embedded = "tile_embeddings/b.pt"
    assert files_of(later)[embedded] == files_of(one)[embedded]
    assert list((tmp_path / "stage").iterdir()) == []
