"""Import killed and continued gives the bytes of one that was never killed."""

import random
import signal
from pathlib import Path

import pytest
from support.commands import call_g2l, leftovers, stop_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.features import slides_of, write_trident

from pipeline.store.store import Store


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A command that imports 98 patches in 49 shards; without --out."""
    folder = tmp_path_factory.mktemp("many")
    manifest, weights = write_cohort(folder / "slides"), write_teacher(folder / "teacher.safetensors")
    store = extract(plan_cohort(manifest, patches_per_slide=49), folder / "e.zarr", weights, dtype="float32").store
    features = write_trident(folder / "features", slides_of(store))
    return [
        "import-features",
        features,
        "--slides-root",
        manifest.parent,
        "--manifest",
        manifest,
        "--teacher",
        TEACHER,
        "--weights",
        weights,
        "--rows-per-shard",
        2,
        "--device",
        "cpu",
        "--workers",
        2,
    ]


@pytest.mark.slow
def test_killed_and_continued_is_as_if_it_never_stopped(tmp_path: Path, many: list[object]) -> None:
    whole, out, rng = tmp_path / "w" / "s.zarr", tmp_path / "k" / "s.zarr", random.Random(3)
    assert call_g2l(*many, "--out", whole)[0] == 0
    done = 0
    for _ in range(2):
        stopped = stop_g2l(
            *many,
            "--out",
            out,
            out=out,
            wait=rng.uniform(0, 0.02),
            ready=lambda enough=done + 3: len(list((out / "shards").glob("*.json"))) >= enough,
        )
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        finished = [i for i, entry in Store(out).first.ledger.entries() if entry]
        assert all(Store(out).first.check_files(i) == [] for i in finished)
        assert done < len(finished) < 49
        done = len(finished)
    assert call_g2l(*many, "--out", out)[0] == 0
    assert array_files(out) == array_files(whole)
    assert (out / "zarr.json").read_bytes() == (whole / "zarr.json").read_bytes()
    assert leftovers(tmp_path) == []
