"""Damaged inputs of every kind through the real commands; and that the harness would see what it looks for."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.annotated import write_geojson
from support.fuzz_damage import OWNED, Damage, damages_of
from support.fuzz_inputs import KINDS, World
from support.fuzz_runs import Case, Fuzzer, fault_of, is_named, make_case
from support.warm import Ended, WarmCommands, made_up_end

SEED, EACH = 0, 2
PARTS = 8
"""The kinds in so many tests, which the processes of a suite share."""
MUST = next(damage for damage in damages_of(Path("x.svs")) if damage.must)
MAY = next(damage for damage in damages_of(Path("x.svs")) if not damage.must)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_inputs_are_named_and_stop_nothing_else(
    world: World, warm: WarmCommands, tmp_path: Path, part: int
) -> None:
    """Two of each kind, the same ones each time; `benchmarks/fuzz.py` runs as many as one likes, or one of them again:
    `--seed 0 --only N`.
    """
    print(f"seed {SEED}")
    fuzzer = Fuzzer(world, tmp_path, SEED, warm, {})
    faults = []
    for kind in range(part, len(KINDS), PARTS):
        for number in range(kind, EACH * len(KINDS), len(KINDS)):
            case = make_case(world, SEED, number)
            assert case.kind == KINDS[kind]
            faults += [f"{case}: {fault}" for fault in [fuzzer.run(case)[1]] if fault]
    assert not faults, f"seed {SEED}, {len(faults)} faults:\n" + "\n\n".join(faults)


# --- the harness ------------------------------------------------------------------------------------------------


def case_of(damage: Damage, file: str = "slides/s0.svs") -> Case:
    return Case(0, KINDS[0], Path(file), damage)


@pytest.mark.parametrize(
    ("damage", "run", "fault"),
    [
        (MUST, made_up_end(1, err="error: s0.svs does not open"), ""),
        (MUST, made_up_end(3, out="s0: damaged"), ""),
        (MAY, made_up_end(0), ""),
        (MUST, made_up_end(0, out="done"), "not noticed"),
        (MUST, made_up_end(1, err="error: something is wrong"), "not named"),
        (MUST, made_up_end(1, err="error: s01.svs does not open"), "not named"),
        (MAY, made_up_end(1), "without a word"),
        (MAY, made_up_end(2, err="s0"), "exit code 2"),
        (MAY, made_up_end(-6, err="s0"), "exit code -6"),
        (MAY, made_up_end(1, err="s0: Traceback (most recent call last):"), "traceback"),
        (MAY, made_up_end(-9, hung=True), "hangs"),
        (MAY, made_up_end(0, orphans=["g2l"]), "stays behind"),
    ],
)
def test_what_counts_as_a_fault(tmp_path: Path, damage: Damage, run: Ended, fault: str) -> None:
    found = fault_of(case_of(damage), run, tmp_path, tmp_path)
    assert fault in found if fault else not found


def test_files_that_stay_are_faults_and_lists_are_read(tmp_path: Path) -> None:
    out, world = tmp_path / "out", tmp_path / "in"
    (world / "slides").mkdir(parents=True)
    out.mkdir()
    (out / "plan.audit.csv").write_text("s0,does not open\n")
    assert fault_of(case_of(MUST), made_up_end(3), world, out) == ""
    (world / "slides" / OWNED).touch()
    assert "code of the input" in fault_of(case_of(MUST), made_up_end(3), world, out)
    (world / "slides" / OWNED).unlink()
    (out / "plan.h5.g2l-lock").touch()
    assert "plan.h5.g2l-lock" in fault_of(case_of(MUST), made_up_end(3), world, out)


def test_a_file_of_a_store_is_named_with_the_store() -> None:
    assert is_named(Path("store.zarr/shards/0.json"), "error: /tmp/store.zarr is damaged")
    assert is_named(Path("store.zarr/plan/slide/c/0"), "DAMAGED\n  plan/slide: not the plan's slides")
    assert not is_named(Path("slides/s0.svs"), "error: /tmp/slides is damaged")
    assert is_named(Path("chimera/1003.json"), "left out: 1003/1003_1.tif: 1003.json: no usable record")
    assert not is_named(Path("chimera/1003.json"), "left out: 1003/1003_1.tif: there is no such record")


def write_samples(folder: Path) -> list[Path]:
    """A file of each kind that has damages of its own."""
    import h5py
    import safetensors.torch
    import torch
    from PIL import Image
    from support.slides import make_slide

    with h5py.File(folder / "a.h5", "w") as f:
        f["features"] = np.ones((4, 8), np.float32)
    torch.save(torch.ones(4, 8), folder / "a.pt")
    safetensors.torch.save_file({"a": torch.ones(4, 8)}, folder / "a.safetensors")
    np.savez(folder / "a.npz", features=np.ones((4, 8)))
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(folder / "a.png")
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(folder / "a.tif")
    make_slide(folder / "a.svs", width=256, height=256, mpp=0.5, downsamples=(1,))
    (folder / "a.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "a.json").write_text('{"a": [1, 2], "b": {"c": 3}}\n')
    write_geojson(folder / "a.geojson", T=(0, 0, 4, 4), S=(1, 1, 4, 4))
    (folder / "a.xml").write_text('<A><P X="1" Y="2" /><P X="3" Y="4" /></A>')
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.geojson", "{}" * 40)
    (folder / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (folder / "a.toml").write_text('[a]\nb = 1\nc = "d"\n')
    return sorted(folder.glob("a.*"))


@pytest.mark.slow
def test_every_damage_changes_the_file_and_is_the_same_again(tmp_path: Path) -> None:
    """For an equal seed, to the byte (but for what torch and HDF5 write on their own)."""
    import random
    import shutil

    (tmp_path / "whole").mkdir()
    for sample in write_samples(tmp_path / "whole"):
        whole = sample.read_bytes()
        for number, damage in enumerate(damages_of(sample)):
            contents = []
            for turn in ("first", "second"):
                path = tmp_path / turn / str(number) / sample.name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(sample, path)
                damage.apply(path, random.Random(5))
                contents.append(path.read_bytes() if path.is_file() else b"none")
            assert not damage.must or contents[0] != whole, (sample.name, damage.name)
            assert contents[0] == contents[1] or sample.suffix in (".h5", ".pt", ".npz"), (sample.name, damage.name)


def test_cases_are_fixed_by_seed_and_number(tmp_path: Path) -> None:
    class Made:
        folder = tmp_path

    (tmp_path / "slides").mkdir()
    for name in ("s0.svs", "s1.svs"):
        (tmp_path / "slides" / name).touch()
    cases = [[make_case(Made, seed, i, KINDS[:1]) for i in range(20)] for seed in (1, 1, 2)]  # type: ignore[arg-type]
    assert cases[0] == cases[1] != cases[2]
    assert {case.file.name for case in cases[0]} == {"s0.svs", "s1.svs"}
