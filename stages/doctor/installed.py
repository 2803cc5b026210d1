"""Look at what is installed, and at the machine: packages, processors, memory, GPUs, weights and the hub's token."""

import importlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from pipeline.base.cores import cgroup_quota, usable_cores
from pipeline.base.errors import first_line
from pipeline.base.outside import free_memory_bytes
from pipeline.base.units import format_bytes
from pipeline.encoders.hub import OFFLINE_VARIABLE, TOKEN_VARIABLE, cached_weights
from pipeline.encoders.table import ENCODERS
from pipeline.training.augment import look_for_opencv
from stages.doctor.findings import Finding, good, note, trouble

LOADED = ("numpy", "torch", "torchvision", "timm", "openslide", "imagecodecs", "simplejpeg", "h5py", "zarr")
"""Modules with compiled parts, which may be installed and yet not load."""
EXTRAS = {
    "onnx": "`g2l export --format onnx`",
    "tensorboard": "curves for TensorBoard",
    "wandb": "`--log wandb`",
    "mlflow": "`--log mlflow`",
    "objects": "stores in buckets (s3://, gs://, az://)",
    "opencv": "fast flips and changes of colour in training without a GPU",
    "demo": "`g2l demo`",
}
"""What each of the optional sets of packages is for."""
OPENCV = "opencv-python-headless"
SAME_MODULE = {OPENCV: ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")}
"""Packages that bring the module of a package, too."""
LITTLE_MEMORY = 8 << 30
"""Free memory below which a giant's weights in float32 (4.5 GB) and a batch do not fit well. Our choice."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


def look_at_packages(distribution: str = "g2l") -> Iterator[Finding]:
    """Look at Python, the packages that G2L needs, whether they load, and the optional ones."""
    yield good("Python", f"{platform.python_version()} at {sys.executable}")
    needed = [Requirement(text) for text in metadata.requires(distribution) or ()]
    wrong = [(each, _version(each.name)) for each in needed if _applies(each) and not _fits(each)]
    for each, version in wrong:
        words = f"{version} is installed, {each.specifier} is needed" if version else "not installed"
        yield trouble(each.name, words, f'pip install "{each.name}{each.specifier}"')
    if not wrong:
        number = sum(map(_applies, needed))
        yield good("packages", f"g2l {metadata.version(distribution)} and all {number} packages that it needs")
    yield from _look_at_loading()
    yield from _look_at_extras(needed)
    yield from _look_at_opencv()


def _look_at_extras(needed: Sequence[Requirement]) -> Iterator[Finding]:
    """Look at the optional sets of packages."""
    for extra, purpose in EXTRAS.items():
        of_extra = (each for each in needed if not _applies(each) and _applies(each, extra))
        if missing := [each.name for each in of_extra if not _fits(each)]:
            words = f"not installed ({', '.join(missing)}): no {purpose}"
            yield note(f"extra {extra}", words, f'pip install "g2l[{extra}]", if you want it')


def _look_at_opencv() -> Iterator[Finding]:
    """Look whether an OpenCV that is there can be used: training goes on without it, and says nothing."""
    _, why = look_for_opencv()
    if why is not None:
        words = f"cv2 {why}; no {EXTRAS['opencv']}"
        others = " ".join(SAME_MODULE[OPENCV])
        advice = f"`pip uninstall {others}`, remove a cv2 that is left, then `pip install --force-reinstall {OPENCV}`"
        yield note("OpenCV", words, advice)


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement is one of this machine, with an optional set of packages or without."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    """Whether a package is installed in a version that is asked for, or one that brings the same module."""
    names = (requirement.name, *SAME_MODULE.get(requirement.name, ()))
    versions = filter(None, map(_version, names))
    return any(requirement.specifier.contains(version, prereleases=True) for version in versions)


def _look_at_loading() -> Iterator[Finding]:
    """Look whether the compiled packages load, and whether torch and OpenSlide can what G2L asks of them."""
    broken = False
    for name in LOADED:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  (a package may raise anything while it loads)
            broken = True
            yield trouble(name, f"does not load: {first_line(error)}", f"pip install --force-reinstall {name}")
    if broken:
        return
    library = _version("openslide-bin")
    yield good("OpenSlide", f"library {library}" if library else "a library of the system")


def look_at_processors() -> Iterator[Finding]:
    """Look at cores, what limits them, and memory."""
    cores, there = usable_cores(), os.cpu_count() or 1
    quota = cgroup_quota()
    limited = f" of {there}" if cores < there else ""
    why = f" (a quota of {quota:g})" if quota is not None and cores < there else ""
    yield good("processors", f"{cores}{limited}{why}; readers and encoders of pixels take as many threads")
    limits = {name: value for name in THREAD_VARIABLES if (value := os.environ.get(name))}
    for name, value in limits.items():
        if value.isdigit() and int(value) < cores:
            advice = f"unset {name}, if it was not set on purpose"
            yield note(name, f"is {value}: models on a processor use {value} of {cores} cores", advice)
    free = free_memory_bytes()
    if free is not None:
        words = f"{format_bytes(free)} free"
        advice = "end other programs, or use a smaller teacher or --batch-size"
        yield note("memory", words, advice) if free < LITTLE_MEMORY else good("memory", words)


def look_at_gpus() -> Iterator[Finding]:
    """Look at the cards that torch sees."""
    try:
        import torch  # may not load, which is what is asked
    except Exception:  # noqa: BLE001  (said by `look_at_packages`)
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            free, _ = torch.cuda.mem_get_info(index)
            words = f"{card.name}, {format_bytes(card.total_memory)}, {format_bytes(free)} free"
            yield good(f"cuda:{index}", words)
        return
    if torch.backends.mps.is_available():
        yield good("GPU", "Apple's, as --device mps")
        return
    slow = "models run on the processor, where a giant takes seconds a patch"
    if torch.version.cuda is None:
        advice = "with a card, install a build of torch for it: https://pytorch.org/get-started/locally"
        yield note("GPU", f"this build of torch knows none; {slow}", advice)
        return
    hidden = os.environ.get(GPU_VARIABLE)
    advice = f"{GPU_VARIABLE} is {hidden!r}: unset it" if hidden is not None else "see whether nvidia-smi shows a card"
    yield note("GPU", f"torch is built for CUDA {torch.version.cuda}, and sees no card; {slow}", advice)


def look_at_weights() -> Iterator[Finding]:
    """Look at the hub's cache and at the token. The token itself goes nowhere."""
    from huggingface_hub import constants  # reads the environment when it is loaded

    cache = Path(constants.HF_HUB_CACHE)
    present = sorted(name for name, spec in ENCODERS.items() if cached_weights(spec))
    if present:
        yield good("weights", f"in {cache}: {', '.join(present)}")
    else:
        advice = "name a file with --weights, or let the first run fetch them"
        yield note("weights", f"{cache} has none of the table's encoders", advice)
    if os.environ.get(OFFLINE_VARIABLE, "").upper() in ("1", "TRUE", "YES", "ON"):
        advice = f"unset {OFFLINE_VARIABLE}, if weights are to be fetched"
        yield note("hub", f"{OFFLINE_VARIABLE} is set: nothing is fetched", advice)
    if os.environ.get(TOKEN_VARIABLE, "").strip():
        yield good("token", f"there is one in {TOKEN_VARIABLE} (not shown)")
    elif Path(constants.HF_TOKEN_PATH).is_file():
        yield good("token", f"there is one in {constants.HF_TOKEN_PATH} (not shown)")
    else:
        advice = "for gated weights (H-optimus, UNI, Virchow, ...) ask for access on their page, then `hf auth login`"
        yield note("token", "there is none: gated weights cannot be fetched", advice)
