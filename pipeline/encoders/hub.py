"""Published weights: whether they are in the local cache, fetching them, and what to do when they cannot be had.

Everything works without a network: with `HF_HUB_OFFLINE=1` only the cache is searched, and `--weights` takes a file or
a folder. No message to the user holds a token.
"""

import logging
import os
import re
from pathlib import Path

from pipeline.base.errors import EncoderError, first_line
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX, split_choice
from pipeline.encoders.forms.index import index_in
from pipeline.encoders.model_config import CONFIG_FILE
from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import EncoderSpec

PUBLISHED_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which hubs keep weights, the safe one first."""
FILES_OF_PAGES = {"majiabo/gpfm": ("GPFM.pth",), "sophontai/openmidnight": ("teacher_checkpoint_load.pt",)}
"""Pages, in lower case, whose weights have names of their own: as slide2vec, LazySlide and TRIDENT ask for them. Of the
table's other pages, loading code names one of `PUBLISHED_FILES` (2026-11).
"""
SPELLINGS = {"mahmoodlab/uni": ("MahmoodLab/UNI", "MahmoodLab/uni")}
"""Pages, in lower case, that tools ask for in more than one spelling: one page of the hub, two folders of its cache."""
FOLDER_FILES = (
    *PUBLISHED_FILES,
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
FOLDER_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".bin")
"""What timm looks for in a folder, in this order: first the names, then the endings (timm 1.0.31, models/_hub.py)."""
TOKEN_VARIABLE = "HF_TOKEN"
OLD_TOKEN_VARIABLE = "HUGGING_FACE_HUB_TOKEN"
"""Its earlier name, which `huggingface_hub` still reads if the other is not set."""
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
TOKEN = re.compile(r"\b(hf|api)_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+")
"""What an access token looks like, and how a request carries it."""


def redacted(text: str) -> str:
    """The text without the token of the environment, and without anything else that looks like a token."""
    for variable in (TOKEN_VARIABLE, OLD_TOKEN_VARIABLE):
        if known := os.environ.get(variable, "").strip():
            text = text.replace(known, "<token>")
    return TOKEN.sub("<token>", text)


def token_of_environment() -> str:
    """The access token that the environment gives, as `huggingface_hub` reads it; "" for none. A login that is saved in
    a file does not count.
    """
    found = os.environ.get(TOKEN_VARIABLE) or os.environ.get(OLD_TOKEN_VARIABLE) or ""
    return found.replace("\r", "").replace("\n", "").strip()


def repository_of(spec: EncoderSpec) -> str:
    """The hub's name of a model's page; "" where its weights are not on one.

    Of a timm name without a tag it is the page of the weights that timm takes by default.
    """
    if spec.source.startswith(HUB_PREFIX):
        return spec.page
    if not spec.source.startswith("timm:"):
        return ""
    import timm  # loads torch: only for names of timm's

    try:
        config = timm.get_pretrained_cfg(spec.source.removeprefix("timm:"))
    except RuntimeError:  # no such tag
        return ""
    return str((config and config.hf_hub_id) or "")


def revision_of(spec: EncoderSpec) -> str | None:
    """The branch, tag or commit of a page that weights are taken from: the one that the source names behind an "@",
    else the one that `page_facts` pins; `None` for the page's main one.
    """
    if not spec.source.startswith(HUB_PREFIX):
        return None
    return spec.source.partition("@")[2] or facts_of(repository_of(spec)).revision or None


def page_of(spec: EncoderSpec) -> str:
    """Address of a model's page; "" if it has none."""
    repository = repository_of(spec)
    return f"https://huggingface.co/{repository}" if repository else ""


def published_files(spec: EncoderSpec) -> tuple[str, ...]:
    """Names that the weights may have on a model's page, in the order in which they are tried."""
    return FILES_OF_PAGES.get(repository_of(spec).lower(), PUBLISHED_FILES)


def weights_in(folder: Path, spec: EncoderSpec) -> Path | None:
    """The file of weights in a folder that stands for a model's page: under the page's name, else under a usual one,
    else the index of several files.
    """
    names = dict.fromkeys((*published_files(spec), *PUBLISHED_FILES))
    return next((folder / name for name in names if (folder / name).is_file()), None) or index_in(folder)


def cached_file(spec: EncoderSpec, name: str) -> Path | None:
    """A file of a model's page in the hub's local cache, of the revision that its source names, or else of the pinned
    and then of the main one: caches that tools or earlier versions filled serve offline. Asks no network.
    """
    import huggingface_hub  # slow to import: only when a file of a page is asked for

    repository, revision = repository_of(spec), revision_of(spec)
    for at in (revision,) if "@" in spec.source else dict.fromkeys((revision, None)):
        for spelling in dict.fromkeys((repository, *SPELLINGS.get(repository.lower(), ()))):
            try:
                path = huggingface_hub.try_to_load_from_cache(spelling, name, revision=at)
            except ValueError:  # no page can be called so, or it has no such file
                continue
            if isinstance(path, str):
                return Path(path)
    return None


def cached_weights(spec: EncoderSpec) -> Path | None:
    """The file of a model's weights in the hub's local cache; asks no network."""
    paths = (cached_file(spec, name) for name in published_files(spec))
    return next((path for path in paths if path), None)


def weights_here(spec: EncoderSpec, weights: Path | None = None) -> Path | None:
    """The file on this machine that a model's weights are read from, or the index of several; `None` if there is none.

    Args:
        weights: the file, `FILE::SET`, or folder with a file that the user names; `None` for the model's own folder or
            the hub's cache.
    """
    if weights:
        place, _ = split_choice(weights)
        return weights_in(place, spec) if place.is_dir() else place if place.is_file() else None
    if not spec.source.startswith(FOLDER_PREFIX):
        return cached_weights(spec)
    folder = Path(spec.source.removeprefix(FOLDER_PREFIX))
    named = [folder / name for name in FOLDER_FILES if (folder / name).exists()]
    others = (path for ending in FOLDER_ENDINGS for path in sorted(folder.glob(f"*{ending}")))
    return next(iter(named), None) or index_in(folder) or next(others, None)


def ways_to_weights(spec: EncoderSpec) -> str:
    """How to get at a model's weights: its page, the variable for a token, and the way without a network."""
    page = page_of(spec)
    if not page:
        return "Name the folder of a whole model (config.json and weights), or give a file with --weights"
    files = " or ".join(published_files(spec))
    access = (
        f"gated: ask for access there, then set {TOKEN_VARIABLE} to an access token"
        if spec.gated
        else f"if it asks for access, set {TOKEN_VARIABLE} to an access token"
    )
    if spec.source.startswith(HUB_PREFIX) and spec.patch_px == 0:  # described by its configuration
        offline = (
            f"download {CONFIG_FILE} and {files} elsewhere into one folder, and name that\n"
            f"folder {FOLDER_PREFIX}FOLDER in place of {spec.name}"
        )
    else:
        offline = (
            f"download {files} elsewhere and give the file or its folder\n"
            "(--weights FILE; ENCODER@FILE where a model is named so)"
        )
    return (
        f"Page: {page} ({access}).\nWithout a network: {offline}, or copy the hub's cache here and set "
        f"{OFFLINE_VARIABLE}=1."
    )


def no_weights(spec: EncoderSpec, reason: str, *, config_only: bool = False) -> EncoderError:
    """The error for published weights that cannot be had, or for the configuration alone where the user has weights."""
    from huggingface_hub.constants import HF_HUB_OFFLINE  # slow to import, as above

    cached = cached_file(spec, CONFIG_FILE) if config_only else cached_weights(spec)
    if HF_HUB_OFFLINE and repository_of(spec) and cached is None:
        reason = f"{OFFLINE_VARIABLE} is set, and the local cache has none"
    source = "" if spec.name == spec.source else f" from {spec.source}"
    what = f"the {'configuration' if config_only else 'weights'} of {spec.name}{source}"
    return EncoderError(redacted(f"cannot get {what} ({reason}).\n{ways_to_weights(spec)}"))


def quiet_hub() -> None:
    """Keep the hub's client from printing its retries and warnings between our messages."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def fetch_published(spec: EncoderSpec) -> Path:
    """The file of weights that a model's page has, from the local cache or the hub.

    Raises:
        EncoderError: it cannot be had: no network, no access, or offline and not in the cache.
    """
    import huggingface_hub  # slow to import: only when a file of a page is asked for
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # likewise

    quiet_hub()
    names = published_files(spec)
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository_of(spec), name, revision=revision_of(spec)))
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError: the hub could not be asked
            if cached := cached_weights(spec):  # under a later name
                return cached
            raise no_weights(spec, first_line(error)) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001  (the client's errors, and those of its proxies, are not documented)
            raise no_weights(spec, first_line(error)) from None
    raise no_weights(spec, f"its page has none of {', '.join(names)}")
