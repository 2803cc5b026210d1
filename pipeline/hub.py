"""Published weights: whether they are in the local cache, fetching them, and what to do when they cannot be had.

Everything works without a network: with `HF_HUB_OFFLINE=1` only the cache is looked at, and `--weights` takes a file or
a folder. What is told to the user never holds a token.
"""

import logging
import os
import re
from pathlib import Path

from pipeline.compute import first_line
from pipeline.encoders import EncoderSpec
from pipeline.errors import EncoderError

HUB = "hf-hub:"
PUBLISHED_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which hubs keep weights, the safe one first."""
TOKEN_VARIABLE = "HF_TOKEN"
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
TOKEN = re.compile(r"\b(hf|api)_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+")
"""What an access token looks like, and how a request carries it."""


def redacted(text: str) -> str:
    """The text without the token of the environment, and without anything else that looks like one."""
    known = os.environ.get(TOKEN_VARIABLE, "").strip()
    return TOKEN.sub("<token>", text.replace(known, "<token>") if known else text)


def repository_of(spec: EncoderSpec) -> str:
    """The hub's name of a model's page; "" where its weights are not on one. timm's own are below its name."""
    if spec.source.startswith(HUB):
        return spec.source.removeprefix(HUB).split("@")[0]
    return f"timm/{spec.source.removeprefix('timm:')}" if spec.source.startswith("timm:") else ""


def page_of(spec: EncoderSpec) -> str:
    """Address of a model's page; "" if it has none."""
    repository = repository_of(spec)
    return f"https://huggingface.co/{repository}" if repository else ""


def cached_weights(spec: EncoderSpec) -> Path | None:
    """The file of a model's weights in the hub's local cache; asks no network."""
    import huggingface_hub

    repository = repository_of(spec)
    for name in PUBLISHED_FILES if repository else ():
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def ways_to_weights(spec: EncoderSpec) -> str:
    """How to get at a model's weights: its page, the variable for a token, and the way without a network."""
    page = page_of(spec)
    if not page:
        return "Name the folder of a whole model (config.json and weights), or give a file with --weights"
    files = " or ".join(PUBLISHED_FILES)
    access = (
        f"gated: ask for access there, then set {TOKEN_VARIABLE} to an access token"
        if spec.gated
        else f"if it asks for access, set {TOKEN_VARIABLE} to an access token"
    )
    return (
        f"Page: {page} ({access}).\n"
        f"Without a network: download {files} elsewhere and give the file or its folder\n"
        f"(--weights FILE; ENCODER@FILE where a model is named so), or copy the hub's cache here and set "
        f"{OFFLINE_VARIABLE}=1."
    )


def no_weights(spec: EncoderSpec, reason: str) -> EncoderError:
    """The one error for weights that cannot be had."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE and repository_of(spec) and cached_weights(spec) is None:
        reason = f"{OFFLINE_VARIABLE} is set, and the local cache has none"
    what = f"the weights of {spec.name} from {spec.source}"
    return EncoderError(redacted(f"cannot get {what} ({reason}).\n{ways_to_weights(spec)}"))


def quiet_hub() -> None:
    """Keep the hub's client from writing its own retries and warnings between our words."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def fetch_published(spec: EncoderSpec) -> Path:
    """The file of weights that a model's page has, from the local cache or the hub.

    Raises:
        EncoderError: it cannot be had: no network, no access, or offline and not in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    quiet_hub()
    for name in PUBLISHED_FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository_of(spec), name))
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError: the hub could not be asked
            raise no_weights(spec, first_line(error)) from None
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise no_weights(spec, first_line(error)) from None
    raise no_weights(spec, f"its page has none of {', '.join(PUBLISHED_FILES)}")
