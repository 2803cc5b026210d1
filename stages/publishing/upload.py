"""Send files to a repository of the Hugging Face Hub: private unless asked otherwise, and seen to be so before any byte
is sent.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE

from pipeline.base.console import Progress
from pipeline.base.errors import ConfigError, ExportError, first_line
from pipeline.encoders.hub import OFFLINE_VARIABLE, TOKEN_VARIABLE, quiet_hub, redacted, token_of_environment
from pipeline.student.hub_header import name_problem

Kind = Literal["model", "dataset"]
FILES_A_COMMIT = 100
"""Files of one commit: the hub advises 50 to 100. What is sent already is not sent again by the next call."""
HUBS_OWN = ".gitattributes"
"""The file that the hub puts into a new repository."""


def require_name(repo: str) -> None:
    """See that a repository is named in full, as the hub takes it.

    Raises:
        ConfigError: it is not.
    """
    if problem := name_problem(repo):
        raise ConfigError(f"--repo {repo}: not the name of a repository. {problem}")


def require_terms_allow(folder: Path, terms: Sequence[str], what: str, whose: str) -> None:
    """See that no terms stand in the way of sharing.

    Args:
        terms: those that do, a line each.
        what: what would be shared, for the message.
        whose: how the terms come to hold for it.

    Raises:
        ExportError: some do.
    """
    if terms:
        listing = "\n".join(f"  {line}" for line in terms)
        raise ExportError(
            f"{folder}: terms that {whose} forbid to share it, or do not say that you may:\n{listing}\n"
            f"Read them; if you may share the {what}, add --i-may-share"
        )


def who_sees(*, public: bool) -> str:
    """Who sees a repository, in words."""
    return "public: everybody sees it" if public else "private"


def send(
    files: Mapping[str, Path | bytes],
    repo: str,
    kind: Kind,
    *,
    public: bool,
    message: str,
    last: Sequence[str] = (),
    only: bool = False,
) -> str:
    """Make the repository if there is none, and send the files; returns what to say. Files that are there already with
    the same bytes are not sent again (the hub's client sees to that), so that a broken call is continued by the next.

    Args:
        files: names in the repository, with the file or its bytes.
        last: files of the last commit, without which nothing is complete.
        only: refuse a repository that holds other files.

    Raises:
        ConfigError: the environment has no token, or the hub is switched off.
        ExportError: the repository is there and not as private as asked, holds other files, or the hub refuses.
    """
    if HF_HUB_OFFLINE:
        raise ConfigError(f"{OFFLINE_VARIABLE} is set: nothing can be sent. Unset it to publish")
    token = token_of_environment()
    if not token:
        raise ConfigError(
            f"no access token in the environment. Set {TOKEN_VARIABLE} to one that may write; a saved login is not used"
        )
    quiet_hub()
    api = HfApi(token=token)
    names = [*(name for name in files if name not in last), *last]
    starts = range(0, len(names), FILES_A_COMMIT)
    try:
        api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        _require_fit(api, repo, kind, public=public, expected=set(files) if only else None)
        with Progress("sending", len(names), "files") as progress:
            for start in starts:
                part = names[start : start + FILES_A_COMMIT]
                commit = api.create_commit(
                    repo,
                    [CommitOperationAdd(name, _source(files[name])) for name in part],
                    repo_type=kind,
                    commit_message=message if len(starts) == 1 else f"{message}, {start + len(part)} of {len(names)}",
                )
                progress.step(len(part))
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001  (the client's errors, and those of its proxies, are not documented)
        raise ExportError(redacted(f"{repo}: the hub did not take it ({first_line(error)})")) from None
    return f"Sent: {commit.commit_url}"


def _source(content: Path | bytes) -> str | bytes:
    return str(content) if isinstance(content, Path) else content


def _require_fit(api: HfApi, repo: str, kind: Kind, *, public: bool, expected: set[str] | None) -> None:
    """See that a repository, which may have been there before, is as private as asked and holds nothing else.

    Raises:
        ExportError: it is or does not.
    """
    info = api.repo_info(repo, repo_type=kind)
    if bool(info.private) == public:
        seen = "private; its page makes it public" if public else "public; type --public to publish to everybody"
        raise ExportError(f"{repo} is there, and is {seen}. Nothing was sent")
    held = {each.rfilename for each in getattr(info, "siblings", None) or ()}
    if expected is not None and (other := sorted(held - expected - {HUBS_OWN})):
        raise ExportError(f"{repo} is there, and holds {other[0]}, which is no file of this store. Nothing was sent")
