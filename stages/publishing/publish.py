"""`g2l publish`: send an exported student to the Hugging Face Hub, only when all of it has been typed.

Without `--yes` nothing is sent, and no network is asked. The repository is private unless `--public` is typed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.outside import format_size, read_bytes
from pipeline.config.tools import PublishConfig
from pipeline.student.hub_header import with_repository
from stages.publishing.sendable import CARD_FILE, files_to_send, in_the_way
from stages.publishing.upload import require_name, require_terms_allow, send, who_sees

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
    require_name(config.repo)
    files = files_to_send(folder)
    if config.slides_terms:
        raise ConfigError("--slides-terms: of a store's slides; a student's card has the terms that it inherits")
    if not config.i_may_share:
        require_terms_allow(folder, in_the_way(folder), "student", "it inherits")
    card = with_repository(read_bytes(folder / CARD_FILE).decode(), config.repo).encode()  # read without an error above
    files[CARD_FILE] = len(card)
    lines = [f"{name}  {format_size(num_bytes)}" for name, num_bytes in files.items()]
    who = who_sees(public=config.public)
    lines.append(f"{len(files)} files, {sum(files.values()):,} bytes, to {config.repo} ({who})")
    if not config.yes:
        return "\n".join([*lines, "Nothing was sent. Add --yes to send it"])
    contents = {name: card if name == CARD_FILE else folder / name for name in files}
    sent = send(contents, config.repo, "model", public=config.public, message="Student exported by G2L")
    return "\n".join([*lines, sent])
