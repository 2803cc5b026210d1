"""Slides of a manifest in a bucket, which is a folder here, are copied to be audited; others are not."""

from pathlib import Path

import pytest
from support.slides import make_slide

from pipeline.base.errors import ConfigError
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.object_slides import audit_of_uncopied, copy_to_audit, require_copies, staged_objects
from pipeline.config.staging import StageFolder
from stages.planning.audit_slide import known_of


def test_only_objects_are_copied_and_one_that_cannot_be_says_why(tmp_path: Path) -> None:
    there = [make_slide(tmp_path / f"{n}.svs", width=64, height=64, downsamples=(1,), seed=n) for n in range(3)]
    lines = [f"a,file://{there[0]},", f"b,file://{there[1]},{'0' * 64}", f"c,{there[2]},"]
    (tmp_path / "m.csv").write_text("slide_id,path,sha256\n" + "\n".join(lines) + "\n")
    manifest, stage, found = read_manifest(tmp_path / "m.csv"), StageFolder(tmp_path / "stage"), []
    with staged_objects(manifest, manifest.rows, stage, check_files=True) as staging:
        for row in manifest.rows:
            with copy_to_audit(manifest.slide_path(row), staging) as (copy, why):
                found.append((copy and copy.read_bytes() == there[0].read_bytes(), why))
    assert found[0] == (True, "")
    assert (found[1][0], "its SHA-256 is not the manifest's" in found[1][1]) == (None, True)
    assert found[2] == (None, "")
    failed = audit_of_uncopied(manifest.rows[1], manifest, known_of(manifest.rows[1]), None, found[1][1])
    assert (failed.slide_id, failed.status, failed.reason) == ("b", "failed", found[1][1])
    with pytest.raises(ConfigError, match="--stage-dir"), staged_objects(manifest, manifest.rows, None):
        pass
    with pytest.raises(ConfigError, match="--stage-dir"):
        require_copies(manifest, manifest.rows, None)
    require_copies(manifest, manifest.rows, stage)
    require_copies(manifest, manifest.rows[2:], None)
    with staged_objects(manifest, manifest.rows[2:], None) as staging:
        assert staging.copy_of(there[2]) is None
