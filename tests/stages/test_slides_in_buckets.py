"""Slides in a bucket, against a real S3-compatible server: plan, store and embeddings are those of local slides, to the
byte; what is wrong with an object is said of that slide; and nothing stays in the folder of copies.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.commands import call_g2l
from support.dicom import RGB
from support.dicom import write_slide as write_dicom
from support.extraction import TEACHER, array_files, big_slide, write_cohort, write_teacher
from support.object_kinds import KINDS, Kind, store_of_kind
from support.object_server import KEY, SECRET, ObjectServer, object_server
from support.slides import make_slide
from support.staging import watching

from pipeline.base.units import format_bytes
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.disk.files import sha256_file
from pipeline.disk.locks import LOCK_SUFFIX
from pipeline.disk.objects import bucket
from pipeline.slides.reader import NO_SLIDE
from pipeline.store.store import Store

NUM_SLIDES = 4
PLAN = ("--patch-px", 64, "--min-tissue", 0, "--patches-per-slide", 12, "--workers", 2)
SMALL = ("--device", "cpu", "--workers", 2)
IN = "of us/slides"
"""Where the slides lie in the bucket."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, server: ObjectServer) -> Path:
    """Slides here and in the bucket, a teacher, and what local commands make of the slides."""
    root = tmp_path_factory.mktemp("slides")
    write_cohort(root / "slides", NUM_SLIDES)
    put_slides(server, root / "slides", IN)
    write_teacher(root / "teacher.safetensors")
    assert plan(root, root / "plan.h5", root / "slides")[0] == 0
    return root


def put_slides(server: ObjectServer, folder: Path, prefix: str) -> None:
    for path in folder.glob("*.svs"):
        server.put(quote(f"{prefix}/{path.name}"), path.read_bytes())


def plan(root: Path, out: Path, slides: object, *more: object, manifest: Path | None = None) -> Any:
    rows = manifest or root / "slides" / "manifest.csv"
    return call_g2l("plan", rows, "--out", out, "--slides-root", slides, *PLAN, *more)


def extract(root: Path, plan: Path, out: Path, *more: object) -> Any:
    teacher = ("--teacher", TEACHER, "--weights", root / "teacher.safetensors", "--rows-per-shard", 8)
    return call_g2l("extract-teacher", plan, "--out", out, *teacher, "--batch-size", 4, *SMALL, *more)


def embed(root: Path, source: Path, out: Path, *more: object) -> Any:
    model = f"{TEACHER}@{root / 'teacher.safetensors'}"
    return call_g2l(
        "embed",
        model,
        source,
        "--out",
        out,
        "--layout",
        "trident",
        "--patch-px",
        64,
        "--mpp",
        0.5,
        "--min-tissue",
        0,
        *SMALL,
        *more,
    )


def biggest(root: Path) -> int:
    return max(path.stat().st_size for path in (root / "slides").glob("*.svs"))


def stage(folder: Path, most_bytes: int | None = None) -> tuple[object, ...]:
    return ("--stage-dir", folder, *(() if most_bytes is None else ("--stage-gb", most_bytes / 1e9)))


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.endswith(LOCK_SUFFIX)]


URL = f"s3://bucket/{IN}"


@pytest.mark.slow
def test_a_plan_is_that_of_the_local_slides(root: Path, tmp_path: Path) -> None:
    """Hash and audit, within room for one slide, though two threads read; overlays too."""
    bound = biggest(root) + 5000
    with watching(tmp_path / "stage") as seen:
        code, out, said = plan(
            root, tmp_path / "plan.h5", URL, *stage(tmp_path / "stage", bound), "--overlays", tmp_path / "o"
        )
    assert code == 0, out + said
    size = format_bytes(sum(path.stat().st_size for path in (root / "slides").glob("*.svs")))
    assert f"{NUM_SLIDES} slides in a bucket: each is copied whole into {tmp_path / 'stage'}, {size} in all" in said
    made, local = read_plan(tmp_path / "plan.h5"), read_plan(root / "plan.h5")
    assert (made.hash, made.audit, str(made.slides_root)) == (local.hash, local.audit, URL)
    assert (tmp_path / "plan.audit.csv").read_bytes() == (root / "plan.audit.csv").read_bytes()
    assert len(list((tmp_path / "o").glob("s*.png"))) == NUM_SLIDES
    assert 0 < max(seen) <= bound
    assert left_in(tmp_path / "stage") == []
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] + [(out + said).encode()]
    assert not [text for text in texts if KEY.encode() in text or SECRET.encode() in text]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_of_another_kind_of_store_is_that_of_the_local_slides(root: Path, tmp_path: Path, kind: Kind) -> None:
    with store_of_kind(kind, tmp_path) as (url, put):
        for path in (root / "slides").glob("*.svs"):
            put(f"{IN}/{path.name}", path.read_bytes())
        slides = f"{url}/{quote(IN) if kind == 'https' else IN}"
        code, out, said = plan(root, tmp_path / "plan.h5", slides, *stage(tmp_path / "stage"))
    assert code == 0, out + said
    made, local = read_plan(tmp_path / "plan.h5"), read_plan(root / "plan.h5")
    assert (made.hash, str(made.slides_root)) == (local.hash, slides)
    assert left_in(tmp_path / "stage") == []


@pytest.mark.slow
def test_a_plan_of_dicom_slides_is_that_of_the_local_ones(root: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Each is all objects of its series, of which the manifest names one."""
    images = {"3": RGB, "4": RGB[::-1]}
    paths = [write_dicom(tmp_path / "slides", name, image, f"1.2.{name}")[2] for name, image in images.items()]
    for path in (tmp_path / "slides").iterdir():
        server.put(f"dicom/{path.name}", path.read_bytes())
    rows = tmp_path / "m.csv"
    rows.write_text("slide_id,path\n" + "".join(f"s{path.stem[0]},{path.name}\n" for path in paths))
    plans = []
    for name, slides in (("local", tmp_path / "slides"), ("bucket", "s3://bucket/dicom")):
        more = stage(tmp_path / "stage") if name == "bucket" else ()
        code, out, said = plan(root, tmp_path / f"{name}.h5", slides, *more, manifest=rows)
        assert code == 0, out + said
        plans.append(read_plan(tmp_path / f"{name}.h5"))
    assert plans[0].hash == plans[1].hash
    assert plans[1].slides[0].identity.series_sha256 is not None
    assert left_in(tmp_path / "stage") == []


@pytest.mark.slow
def test_candidates_are_described_from_another_copy(root: Path, tmp_path: Path) -> None:
    """`--sampler-encoder` reads slides once more: the plan is that of the local slides, within room for one."""
    encoder = f"{TEACHER}@{root / 'teacher.safetensors'}"
    more = ("--sample", "cluster", "--clusters", 2, "--sampler-encoder", encoder, "--device", "cpu")
    assert plan(root, tmp_path / "local.h5", root / "slides", *more)[0] == 0
    bound = biggest(root) + 5000
    with watching(tmp_path / "stage") as seen:
        code, out, said = plan(root, tmp_path / "plan.h5", URL, *more, *stage(tmp_path / "stage", bound))
    assert code == 0, out + said
    assert said.count("slides in a bucket: each is copied whole") == 2
    made, local = read_plan(tmp_path / "plan.h5"), read_plan(tmp_path / "local.h5")
    assert (made.hash, made.audit) == (local.hash, local.audit)
    assert 0 < max(seen) <= bound
    assert left_in(tmp_path / "stage") == []


@pytest.mark.slow
def test_a_store_is_that_of_the_local_slides(root: Path, tmp_path: Path) -> None:
    """From a plan of local slides and from one of the bucket; with a look at the teacher before."""
    assert extract(root, root / "plan.h5", tmp_path / "local.zarr")[0] == 0
    bound = biggest(root) + 5000
    with watching(tmp_path / "stage") as seen:
        code, out, said = extract(
            root, root / "plan.h5", tmp_path / "a.zarr", "--slides-root", URL, *stage(tmp_path / "stage", bound)
        )
    assert code == 0, out + said
    assert array_files(tmp_path / "a.zarr") == array_files(tmp_path / "local.zarr")
    assert 0 < max(seen) <= bound
    whole = stage(tmp_path / "stage")
    assert plan(root, tmp_path / "plan.h5", URL, *whole)[0] == 0
    assert extract(root, tmp_path / "plan.h5", tmp_path / "b.zarr", *whole)[0] == 0
    made, local = array_files(tmp_path / "b.zarr"), array_files(tmp_path / "local.zarr")
    made["plan/zarr.json"] = made["plan/zarr.json"].replace(URL.encode(), str(root / "slides").encode())
    assert made == local
    assert left_in(tmp_path / "stage") == []
    code, out, _ = extract(root, tmp_path / "plan.h5", tmp_path / "b.zarr", *whole)  # finished: asks nothing
    assert code == 0, out


@pytest.mark.slow
def test_embeddings_are_those_of_the_local_slides(root: Path, server: ObjectServer, tmp_path: Path) -> None:
    """A finished slide is not copied again unless its object has been written since."""
    shutil.copytree(root / "slides", tmp_path / "slides")
    put_slides(server, tmp_path / "slides", "embedded")
    manifest, url = tmp_path / "slides" / "manifest.csv", "s3://bucket/embedded"
    assert embed(root, manifest, tmp_path / "local")[0] == 0
    more = ("--slides-root", url, *stage(tmp_path / "stage", biggest(root) + 5000))
    code, out, said = embed(root, manifest, tmp_path / "out", *more)
    assert code == 0, out + said
    files = {p.relative_to(tmp_path / "out"): p for p in (tmp_path / "out").rglob("*.h5")}
    assert len(files) == 2 * NUM_SLIDES
    for name, path in files.items():
        assert path.read_bytes() == (tmp_path / "local" / name).read_bytes()
    later = time.time() + 5
    for path in files.values():
        os.utime(path, (later, later))
    with watching(tmp_path / "stage") as seen:
        assert embed(root, manifest, tmp_path / "out", *more)[0] == 0
    assert max(seen) == 0
    make_slide(tmp_path / "other.svs", width=512, height=448, mpp=0.5, downsamples=(1,), tile=64, seed=9)
    server.put("embedded/s1.svs", (tmp_path / "other.svs").read_bytes())
    code, out, said = embed(root, manifest, tmp_path / "out", *more)
    assert (code, "s3://bucket/embedded/s1.svs: not the slide that" in out + said) == (3, True), out + said


def test_without_a_folder_for_copies_the_error_names_the_option(root: Path, tmp_path: Path) -> None:
    calls = [
        plan(root, tmp_path / "plan.h5", URL),
        extract(root, root / "plan.h5", tmp_path / "a.zarr", "--slides-root", URL),
        embed(root, root / "slides" / "manifest.csv", tmp_path / "out", "--slides-root", URL),
    ]
    for code, out, said in calls:
        assert (code, "s0.svs: a slide in a bucket is copied" in said, "--stage-dir" in said) == (1, True, True), (
            out + said
        )
    assert list(tmp_path.rglob("*.h5")) == []


@pytest.mark.slow
def test_names_that_are_odd_are_found_and_those_that_lead_elsewhere_refused(
    root: Path, server: ObjectServer, tmp_path: Path
) -> None:
    odd = ["a b.svs", "sl #1.svs", "p%20c.svs", "\u00e9.svs", "x/ü [1]+~*&'.svs"]
    for number, name in enumerate(odd):
        server.put(quote(f"odd/{name}"), (root / "slides" / f"s{number % NUM_SLIDES}.svs").read_bytes())
    rows = [f'o{number},"s3://bucket/odd/{name}",c' for number, name in enumerate(odd[:4])] + [f'o4,"{odd[4]}",c']
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,path,case_id\n" + "\n".join(rows) + "\n")
    code, out, said = plan(root, tmp_path / "p.h5", "s3://bucket/odd", *stage(tmp_path / "stage"), manifest=manifest)
    assert code == 0, out + said
    assert {row.status for row in read_plan(tmp_path / "p.h5").audit} == {"ok"}
    bad = [
        "../x.svs",
        "s3://bucket/odd/../../x.svs",
        "s3://bucket//x.svs",
        "s3://bucket",
        "s3://bucket/odd/",
        "s3://b/" + "x" * 300,
    ]
    bad += [
        "s3://bucket/x.svs?X-Amz-Signature=hidden",
        "s3://user:hidden@bucket/x.svs",
        "ftp://h/x.svs",
        "s3://b/a\\b.svs",
    ]
    manifest.write_text("slide_id,path\n" + "".join(f'b{number},"{name}"\n' for number, name in enumerate(bad)))
    code, out, said = plan(root, tmp_path / "q.h5", "s3://bucket/odd", *stage(tmp_path / "stage"), manifest=manifest)
    assert (code, "hidden" in out + said) == (1, False)
    assert [number for number in range(len(bad)) if f"line {number + 2}:" not in said] == [], said


@pytest.mark.slow
def test_missing_objects_are_listed_and_one_that_goes_later_fails_by_name(
    root: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_slides(server, root / "slides", "going")
    server.delete("going/s1.svs")
    url, copies = "s3://bucket/going", stage(tmp_path / "stage")
    code, out, said = plan(root, tmp_path / "p.h5", url, *copies)
    assert (code, "s3://bucket/going/s1.svs: no such object" in said) == (1, True), out + said
    code, out, said = extract(root, root / "plan.h5", tmp_path / "a.zarr", "--slides-root", url, *copies)
    assert (code, "1 of 4 planned slides are missing" in said) == (3, True), out + said
    failures = (tmp_path / "a.zarr" / "failures.csv").read_text()
    assert failures.count("s3://bucket/going/s1.svs: no such object") == 12
    counts = Store(tmp_path / "a.zarr").first.ledger.status_counts()
    assert (counts["OK"], counts["NO_SLIDE"]) == (36, 12)
    server.put("going/s1.svs", (root / "slides" / "s1.svs").read_bytes())
    more = ("--slides-root", url, *copies, "--retry-failures")
    assert extract(root, root / "plan.h5", tmp_path / "a.zarr", *more)[0] == 0
    assert left_in(tmp_path / "stage") == []


@pytest.mark.slow
def test_what_is_not_the_planned_slide_or_not_the_manifests_is_named(
    root: Path, server: ObjectServer, tmp_path: Path
) -> None:
    """Written anew between plan and extraction; another hash than the manifest's; no slide at all; too large."""
    put_slides(server, root / "slides", "changed")
    server.put("changed/s2.svs", big_slide(tmp_path / "big.svs", 1).read_bytes())
    more = ("--slides-root", "s3://bucket/changed", *stage(tmp_path / "stage"), "--no-preflight")
    code, out, said = extract(root, root / "plan.h5", tmp_path / "a.zarr", *more)
    assert code == 3, out + said
    text = (tmp_path / "a.zarr" / "failures.csv").read_text()
    assert text.count("s3://bucket/changed/s2.svs: not the slide that was planned") == 12
    server.put("changed/s3.svs", b"no slide")
    manifest = tmp_path / "m.csv"
    lines = [
        f"s{n},s{n}.svs,{'0' * 64 if n == 1 else sha256_file(root / 'slides' / f's{n}.svs') if n == 0 else ''}"
        for n in range(4)
    ]
    manifest.write_text("slide_id,path,sha256\n" + "\n".join(lines) + "\n")
    bound = biggest(root) + 5000
    code, out, said = plan(
        root, tmp_path / "p.h5", "s3://bucket/changed", *stage(tmp_path / "stage", bound), manifest=manifest
    )
    assert code == 3, out + said
    reasons = {row.slide_id: row.reason for row in read_plan(tmp_path / "p.h5").audit}
    assert reasons["s0"] == ""
    assert reasons["s1"].startswith("s3://bucket/changed/s1.svs: its SHA-256 is not the manifest's")
    assert "--stage-gb allows" in reasons["s2"]
    assert reasons["s3"] == f"s3://bucket/changed/s3.svs: {NO_SLIDE}"
    assert left_in(tmp_path / "stage") == []


@pytest.mark.slow
def test_a_server_that_goes_away_ends_the_run_and_the_same_command_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes amid the second slide. Nothing is recorded as failed but the first slide that it kept waiting."""
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 0.4)
    assert extract(root, root / "plan.h5", tmp_path / "local.zarr")[0] == 0
    copies, fetch, started = stage(tmp_path / "stage", biggest(root) + 5000), bucket.Bucket.fetch, []
    with object_server() as server:
        put_slides(server, root / "slides", "x")

        def going(self: bucket.Bucket, name: str, *arguments: Any, **more: Any) -> str:
            started.append(name)
            if len(started) == 2:
                server.kill()
            return fetch(self, name, *arguments, **more)

        monkeypatch.setattr(bucket.Bucket, "fetch", going)
        more = ("--slides-root", "s3://bucket/x", *copies, "--no-preflight")
        code, out, said = extract(root, root / "plan.h5", tmp_path / "a.zarr", *more)
        assert (code, "s2.svs: cannot be looked at" in said, "run the same command again" in said) == (1, True, True), (
            said
        )
        assert left_in(tmp_path / "stage") == []
        server.start()
        put_slides(server, root / "slides", "x")
        code, out, said = extract(root, root / "plan.h5", tmp_path / "a.zarr", *more, "--retry-failures")
    assert code == 0, out + said
    assert array_files(tmp_path / "a.zarr") == array_files(tmp_path / "local.zarr")


@pytest.mark.slow
def test_a_server_that_is_away_for_a_moment_changes_nothing(
    root: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, lost = bucket.Bucket.read, iter(range(3))

    def losing(self: bucket.Bucket, name: str, start: int, length: int) -> bytes:
        if next(lost, None) is not None:
            self._tried(name, "read", lambda: interrupted(lost))
        return read(self, name, start, length)

    def interrupted(times: Iterator[int]) -> None:
        if next(times, None) is not None:
            raise ConnectionError("connection reset")

    monkeypatch.setattr(bucket.Bucket, "read", losing)
    code, out, said = plan(root, tmp_path / "p.h5", URL, *stage(tmp_path / "stage"))
    assert code == 0, out + said
    assert read_plan(tmp_path / "p.h5").hash == read_plan(root / "plan.h5").hash


@pytest.mark.slow
def test_no_permission_is_said_with_where_credentials_come_from(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Denying(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Denying) as denying:
        threading.Thread(target=denying.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{denying.server_port}")
        try:
            calls = [
                plan(root, tmp_path / "p.h5", URL, *stage(tmp_path / "stage")),
                extract(root, root / "plan.h5", tmp_path / "a.zarr", "--slides-root", URL, *stage(tmp_path / "stage")),
            ]
        finally:
            denying.shutdown()
    for code, out, said in calls:
        assert (code, "access is denied, or there are no credentials" in said) == (1, True), out + said
        assert KEY not in out + said
        assert SECRET not in out + said


@pytest.mark.slow
def test_a_store_without_pixels_and_an_import_refuse_slides_in_a_bucket(root: Path, tmp_path: Path) -> None:
    """Stage two reads rows in random order; the word comes before anything is read or trained."""
    more = ("--slides-root", URL, *stage(tmp_path / "stage"), "--pixels", "none", "--no-preflight")
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,path,case_id\n" + "".join(f"s{n},{URL}/s{n}.svs,c{n}\n" for n in range(4)))
    assert plan(root, tmp_path / "p.h5", root, *stage(tmp_path / "stage"), manifest=manifest)[0] == 0
    assert extract(root, tmp_path / "p.h5", tmp_path / "a.zarr", *more)[0] == 0
    student = ("--student", TEACHER, "--weights", "scratch", "--device", "cpu")
    code, out, said = call_g2l("train-student", tmp_path / "a.zarr", "--out", tmp_path / "run", *student)
    assert (code, "s0.svs: a slide in a bucket is read from a copy only" in said, "--pixels" in said) == (
        1,
        True,
        True,
    ), said
    features = tmp_path / "features"
    features.mkdir()
    (features / "s0.h5").write_bytes(b"")
    more = ("--slides-root", root, "--teacher", TEACHER, "--manifest", manifest)
    code, out, said = call_g2l("import-features", features, "--out", tmp_path / "b.zarr", *more)
    assert (code, "s0.svs: a slide in a bucket is read from a copy only, and import" in said) == (1, True), out + said
