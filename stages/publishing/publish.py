"""`g2l publish`: send an exported student to the Hugging Face Hub, only when all of it has been typed.

Without `--yes` nothing is sent, and no network is asked. The repository is private unless `--public` is typed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import HF_HUB_OFFLINE

from pipeline.base.errors import ConfigError, ExportError, first_line
from pipeline.base.outside import format_size
from pipeline.config.tools import PublishConfig
from pipeline.encoders.hub import OFFLINE_VARIABLE, TOKEN_VARIABLE, quiet_hub, redacted
from pipeline.student.hub_header import REPOSITORY
from stages.publishing.sendable import files_to_send, in_the_way

TYPED = ("yes", "public", "i_may_share")
"""Options that only the command line may give."""


def require_typed(table: Mapping[str, Any]) -> None:
    """See that the file of `--config` decides nothing that a person is to type.

    Raises:
        ConfigError: it does.
    """
    for name in TYPED:
        if name in table:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"[publish] {name}: a file cannot say this. Take it out of the file, and type {flag}")


def publish_student(folder: Path, config: PublishConfig) -> str:
    """Say what of an exported student would be sent where, and send it if `yes`.

    Raises:
        ConfigError: the repository is not OWNER/NAME, or there is no token.
        ExportError: the folder must not be sent, its terms stand in the way, or the hub refuses.
        EncoderError: a file of the folder is damaged.
    """
    if not REPOSITORY.fullmatch(config.repo):
        raise ConfigError(f"--repo {config.repo}: not the name of a repository. Give OWNER/NAME")
    files = files_to_send(folder)
    if not config.i_may_share and (terms := in_the_way(folder)):
        listing = "\n".join(f"  {line}" for line in terms)
        raise ExportError(
            f"{folder}: terms that it inherits forbid to share it, or do not say that you may:\n{listing}\n"
            "Read them; if you may share the student, add --i-may-share"
        )
    lines = [f"{name}  {format_size(num_bytes)}" for name, num_bytes in files.items()]
    who = "public: everybody sees it" if config.public else "private"
    lines.append(f"{len(files)} files, {sum(files.values()):,} bytes, to {config.repo} ({who})")
    if not config.yes:
        return "\n".join([*lines, "Nothing was sent. Add --yes to send it"])
    return "\n".join([*lines, _send(folder, list(files), config.repo, public=config.public)])


def _send(folder: Path, files: list[str], repo: str, *, public: bool) -> str:
    """Make the repository if there is none, and send the files as one commit; returns what to say.

    Raises:
        ConfigError: there is no token, or the hub is switched off.
        ExportError: the repository is there and not as private as asked, or the hub refuses.
    """
    if HF_HUB_OFFLINE:
        raise ConfigError(f"{OFFLINE_VARIABLE} is set: nothing can be sent. Unset it to publish")
    token = get_token()
    if not token:
        raise ConfigError(f"no access token. Set {TOKEN_VARIABLE} to one that may write, or run `hf auth login`")
    quiet_hub()
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        if bool(api.model_info(repo).private) == public:  # it was there before
            seen = "private; its page makes it public" if public else "public; type --public to publish to everybody"
            raise ExportError(f"{repo} is there, and is {seen}. Nothing was sent")
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=files, commit_message="Student exported by G2L"
        )
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001  (the client's errors, and those of its proxies, are not documented)
        raise ExportError(redacted(f"{repo}: the hub did not take it ({first_line(error)})")) from None
    return f"Sent: {commit.commit_url}"
