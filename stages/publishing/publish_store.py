"""`g2l publish STORE`: send a whole store to the Hugging Face Hub as a data set with a card, only when all is typed."""

from pathlib import Path

from pipeline.base.console import counted
from pipeline.base.errors import ConfigError
from pipeline.base.outside import format_size
from pipeline.base.units import format_bytes
from pipeline.config.tools import PublishConfig
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.store import Store
from pipeline.student.hub_header import PAPER_SECTION, TERMS, TERMS_FILE
from stages.publishing.data_card import data_card, patients_note, store_terms_in_the_way
from stages.publishing.sendable import CARD_FILE
from stages.publishing.store_files import files_of_store, require_complete_store, seen_barcodes, seen_places
from stages.publishing.upload import require_name, require_terms_allow, send, who_sees


def publish_store(folder: Path, config: PublishConfig) -> str:
    """Say what of a store would be sent where, and send it if `yes`.

    Raises:
        ConfigError: the repository is not OWNER/NAME, the slides' terms are not stated, or there is no token.
        StoreError: the store is not whole.
        ExportError: terms stand in the way, or the hub refuses.
    """
    require_name(config.repo)
    if not config.slides_terms.strip():
        raise ConfigError(
            "--slides-terms: a store holds what was made of slides. State their licence, such as CC-BY-4.0, or their "
            "terms in words"
        )
    store = Store(folder)
    if not config.i_may_share:
        terms = store_terms_in_the_way(store, config.slides_terms)
        require_terms_allow(folder, terms, "store", "hold for it")
    require_complete_store(store)
    card = card_files(store, config.slides_terms, config.repo)
    files = files_of_store(store) | card
    lines = [*_listing(files), *_told(store, files), _summary(files, config.repo, public=config.public)]
    if not config.yes:
        return "\n".join([*lines, "Nothing was sent. Add --yes to send it"])
    sent = send(
        files,
        config.repo,
        "dataset",
        public=config.public,
        message="Store of embeddings made by G2L",
        last=[METADATA, *card],
        only=True,
    )
    return "\n".join([*lines, sent])


def card_files(store: Store, slides_terms: str, repository: str) -> dict[str, Path | bytes]:
    """The card, and the terms by themselves, which its header may name.

    Raises:
        StoreError: the store is damaged.
    """
    card = data_card(store, slides_terms, repository)
    terms = f"# Terms of this data set\n{card.partition(TERMS)[2].partition(PAPER_SECTION)[0].rstrip()}\n"
    return {CARD_FILE: card.encode(), TERMS_FILE: terms.encode()}


def _listing(files: dict[str, Path | bytes]) -> list[str]:
    """Each file at the top by itself, and each folder with how many files and bytes are in it."""
    lines = []
    for top in sorted({name.partition("/")[0] for name in files}):
        inside = [content for name, content in files.items() if name.startswith(f"{top}/")]
        if inside:
            lines.append(f"{top}/  {counted(len(inside), 'file')}, {format_size(sum(map(_size, inside)))}")
        else:
            lines.append(f"{top}  {format_size(_size(files[top]))}")
    return lines


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _summary(files: dict[str, Path | bytes], repo: str, *, public: bool) -> str:
    """How many files and bytes go where, and who sees them."""
    num_bytes = sum(map(_size, files.values()))
    who = who_sees(public=public)
    return f"{len(files):,} files, {format_bytes(num_bytes)} ({num_bytes:,} bytes), to data set {repo} ({who})"


def _told(store: Store, files: dict[str, Path | bytes]) -> list[str]:
    """What whoever sees the data set learns beside the embeddings."""
    lines = [patients_note(store)]
    if barcodes := seen_barcodes(files):
        lines.append(
            f"It names patients by TCGA's barcodes, such as {', '.join(barcodes)}: everybody can look them up."
        )
    if places := seen_places(files):
        lines.append(f"Places of this machine that the store's hash covers, and that stay: {', '.join(places)}")
    return lines
