"""The encoders in words: the table of all, and one of them with the way to its weights; without torch."""

from pathlib import Path

from pipeline.base.console import table
from pipeline.base.errors import EncoderError
from pipeline.config.model_names import FOLDER_PREFIX, HUB_PREFIX
from pipeline.encoders.hub import cached_weights, ways_to_weights, weights_here
from pipeline.encoders.left_out import is_open_address, left_out_name
from pipeline.encoders.model_config import CONFIG_FILE
from pipeline.encoders.table import ENCODERS, EncoderSpec, named_spec
from stages.reports.models import describe_left_out, left_out_table, page_rows


def models_table(*, everything: bool = False) -> str:
    """The table of encoders, for the terminal; with `everything` also the encoders that are not in it, and why."""
    cells = [
        (
            s.name,
            f"{s.params_m:,.0f} M",
            s.width,
            s.embedding,
            s.patch_px,
            f"{s.mpp:g}" if s.mpp else "",
            "yes" if s.gated else "no",
            "yes" if cached_weights(s) else "no",
            s.licence,
            s.source,
        )
        for s in ENCODERS.values()
    ]
    header = ("name", "parameters", "width", "embedding", "px", "um/px", "gated", "cached", "licence", "weights")
    text = table(cells, header, right=(1, 2, 4, 5))
    others = f"Not in the table:\n{left_out_table()}\n\n" if everything else ""
    return (
        f"{text}\n\n{others}cached: the weights are in the hub's cache on this machine. `g2l models NAME` says how to "
        f"get them.\nAny timm name, {HUB_PREFIX}OWNER/NAME or {FOLDER_PREFIX}FOLDER works as well."
    )


def describe_model(name: str) -> str:
    """One encoder: what it is, and how to get its weights.

    Raises:
        EncoderError: neither the table nor timm knows the name, or it is a folder without a model.
    """
    if left_out_name(name) and not is_open_address(name):
        return describe_left_out(name)
    spec = named_spec(name)
    of_folder = spec.source.startswith(FOLDER_PREFIX)
    if of_folder:
        _check_folder(Path(spec.source.removeprefix(FOLDER_PREFIX)))
    if spec.patch_px == 0 and spec.source.startswith("timm:"):
        _check_known_to_timm(name)
    file = weights_here(spec)
    rows: list[tuple[str, object]] = [
        ("name", spec.name),
        ("weights", spec.source),
        ("architecture", spec.architecture),
        ("arguments", ", ".join(f"{key}={value}" for key, value in spec.arguments.items()) or "none"),
        *_model_facts(spec),
        ("licence", spec.licence),
        ("gated", "yes" if spec.gated else "not known to be"),
        *page_rows(spec),
        ("file" if of_folder else "cached", file or "no"),
    ]
    return table(rows) if of_folder and file else f"{table(rows)}\n\n{ways_to_weights(spec)}"


def _model_facts(spec: EncoderSpec) -> list[tuple[str, object]]:
    """Size, embedding and patches of an encoder, as far as the table knows them."""
    unknown = "as its own configuration says"
    mpp = f"{spec.mpp:g}" if spec.mpp else "an unstated number of"
    return [
        ("parameters", f"{spec.params_m:,.1f} M" if spec.params_m else unknown),
        ("embedding", f"{spec.embedding}, {spec.width} dimensions" if spec.width else unknown),
        ("patches", f"{spec.patch_px} px at {mpp} um/px" if spec.patch_px else unknown),
        ("mean, std", f"{spec.mean}, {spec.std}" if spec.patch_px else unknown),
    ]


def _check_folder(folder: Path) -> None:
    """Refuse a folder that timm does not load as a model.

    Raises:
        EncoderError: it is none.
    """
    if not folder.is_dir():
        raise EncoderError(f"{folder}: no such folder")
    if not (folder / CONFIG_FILE).is_file():
        raise EncoderError(f"{folder}: no {CONFIG_FILE} is in this folder, so it is no model that timm loads")


def _check_known_to_timm(name: str) -> None:
    """Refuse a name that is neither in the table nor timm's. timm is loaded for it, which takes seconds.

    Raises:
        EncoderError: nobody knows the name.
    """
    from pipeline.encoders.build import known_to_timm, mistyped_encoder  # loads torch

    if not known_to_timm(name):
        raise EncoderError(
            f"no encoder is called {name}{mistyped_encoder(name)}; `g2l models` lists those of the table, and any timm "
            "name works"
        )
