"""Look at what the stages wrote: find out what a path is, and describe it."""

from pathlib import Path

from pipeline.base.console import say
from pipeline.base.errors import G2LError
from pipeline.base.outside import is_there
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.config.model_names import is_run
from pipeline.disk.objects.urls import as_url
from pipeline.disk.raw_arrays import METADATA
from pipeline.public_sets.options import REPRODUCE_OPTIONS_FILE
from pipeline.store.remote.opening import open_store
from pipeline.student.exported import is_student
from pipeline.study.folder import STUDY_FILE
from pipeline.training.run_folder import RunFolder
from stages.inspecting.plan import describe_plan
from stages.inspecting.run import describe_run
from stages.inspecting.store import describe_store
from stages.inspecting.student import STUDENT_FILES, describe_student
from stages.inspecting.study import describe_reproduction, describe_study


def inspect_path(path: Path) -> str:
    """What a plan, a store, a run, an exported student, a study or a reproduction holds, and how far it has come.

    Raises:
        G2LError: it is none of them.
    """
    if as_url(path) or (path / METADATA).exists():
        with open_store(path, tell=say) as store:
            return describe_store(store)
    if is_run(path):
        return describe_run(RunFolder(path))
    if path.is_file():
        return describe_plan(read_plan(path), path)
    if all((path / name).is_file() for name in STUDENT_FILES) and is_student(path):
        return describe_student(path)
    if is_there(path / STUDY_FILE):
        return describe_study(path)
    if is_there(path / REPRODUCE_OPTIONS_FILE):
        return describe_reproduction(path)
    kinds = "plan, store, run, exported student, study or reproduction"
    raise G2LError(f"{path} is no {kinds}" if path.exists() else f"{path} does not exist")
