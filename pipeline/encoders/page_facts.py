"""What is known of the pages that the table's weights are on: the revision that is taken, its file, and where it all
was read.

Pure. A revision is a commit of the page whose files somebody has loaded and written down. Where none could be
established, none is stated, and the page's main branch is taken; `hf-hub:OWNER/NAME@REVISION` names one. Left out: what
the encoders are, which is `table`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

RAW2FEATURES = "github.com/CraigMyles/raw2features, src/raw2features/embedders/registry.yaml at 61429a7"
TRIDENT = "github.com/mahmoodlab/TRIDENT, trident/patch_encoder_models/load.py at 0120b8b"
SLIDE2VEC = "slide2vec 7.1.4 (PyPI), slide2vec/encoders/models"
LAZYSLIDE = "lazyslide-models 0.1.0 (PyPI), lazyslide_models/vision"
THUNDER = "thunder-bench 0.2.2 (PyPI), thunder/models/pretrained_models.py and thunder/config/pretrained_model"
EVA = "kaiko-eva 0.4.5 (PyPI), eva/vision/models/networks/backbones/pathology"
PAGE_ITSELF = "the model's page"
HISTORY = "the history of the model's page"


@dataclass(frozen=True)
class PageFacts:
    """What is known of a model's page.

    Attributes:
        revision: the commit that is taken; "" if none could be established.
        read_in: where architecture, statistics and revision were read (2026-11).
        file: the file of weights of that revision; "" if its name was not written down with it.
        sha256: hex SHA-256 of that file; "" if it is not known.
        stretched_by: whose rule brings position embeddings of another image size to the encoder's: "timm", or
            "transformers", whose bicubic has no antialiasing.
    """

    revision: str
    read_in: tuple[str, ...]
    file: str = ""
    sha256: str = ""
    stretched_by: str = "timm"


NO_FACTS = PageFacts("", ())

_KAIKO = ("1aurent/", ".kaiko_ai_towards_large_pathology_fms")
_DISTILLPATH = PageFacts("", (PAGE_ITSELF + ", in part: architecture and statistics, but no terms of the student",))

# fmt: off
PAGES: Mapping[str, PageFacts] = MappingProxyType({
    "bioptimus/h-optimus-0": PageFacts(
        "b145cc1e6c6b30d3251aa8b1f844e6974188a743", (TRIDENT, RAW2FEATURES), "pytorch_model.bin",
        "bf47b8467403079798661601b6ab06533be789da48d3f8b510aaefe2fbc55cd3",
    ),
    "bioptimus/h-optimus-1": PageFacts(
        "3592cb220dec7a150c5d7813fb56e68bd57473b9", (TRIDENT, RAW2FEATURES), "model.safetensors",
        "c4f1e5b457ddf00679626053b0bf2899be6a19c3a04ad191c87ad1cdfd1abfe1",
    ),
    "bioptimus/h0-mini": PageFacts(
        "5b5cc0505d19ae558270045eb0df8c34df4d9609", (SLIDE2VEC, RAW2FEATURES), "model.safetensors",
        "5e4de45a6527a8160f7c21fe3105c987757efe30ce581e1f2cf5809476069ade",
    ),
    "histai/hibou-l": PageFacts(
        "31a3b9fee16554c8552cb643d311733bce8faf7c", (TRIDENT, RAW2FEATURES), "",
        "a63d1699448143ceccf2b7e1c4bf35b995c51f86ef8a6efb471af2eee210b79c",
    ),
    "histai/hibou-b": PageFacts(
        "7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c",
        ("config.json of " + PAGE_ITSELF, "github.com/HistAI/hibou, hibou/models at 06102fd", RAW2FEATURES),
        "model.safetensors", "2121db3cac83bc9abf13a458a37b0740e2ce725609ff8d4b8e6b6c56c30c3ab6",
    ),
    "mahmoodlab/uni": PageFacts(
        "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0", (TRIDENT, RAW2FEATURES), "",
        "56ef09b44a25dc5c7eedc55551b3d47bcd17659a7a33837cf9abc9ec4e2ffb40",
    ),
    "mahmoodlab/uni2-h": PageFacts(
        "d517a8dd47902dd7c308b3c36f63bce47e7b9a43", (TRIDENT, RAW2FEATURES), "",
        "6e077eda234bebc595868d918d3458d9dd32a050199b0ff04443b2f46a0a3b1e",
    ),
    "paige-ai/virchow2": PageFacts(
        "3158645804b69e3f3bc4439d4116edddf0840a72", (TRIDENT, RAW2FEATURES), "",
        "8d6cea947eb2418c3b0dff48cfb9b238e47744ab0dfca21b2b0637b140769b4b",
    ),
    "paige-ai/virchow": PageFacts(
        "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a", (TRIDENT, SLIDE2VEC, RAW2FEATURES), "model.safetensors",
        "3416891b37a2349a2d9ce7ecf00b64a6277011b41351436c1ceb0abb80805408",
    ),
    "prov-gigapath/prov-gigapath": PageFacts(
        "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19", (TRIDENT, RAW2FEATURES), "pytorch_model.bin",
        "877947214318afa9e011754b74bbc3894a1f480a253afc7bc8045b8321dedd63",
    ),
    "prov-gigapath/prov-gigapath-flash": PageFacts(
        "", ("github.com/prov-gigapath/prov-gigapath, gigapath/tile_encoder.py", TRIDENT, LAZYSLIDE),
        "pytorch_model.bin",
    ),
    "owkin/phikon": PageFacts(
        "057cc0295895c2df3dd7681a89680da6015cbefe", (TRIDENT, LAZYSLIDE, RAW2FEATURES), "model.safetensors",
        "d01642bfeb683c6b039622eca273e0a8e4208065a4595b63edba178c1c4cfa68",
    ),
    "owkin/phikon-v2": PageFacts(
        "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd", (TRIDENT, RAW2FEATURES), "model.safetensors",
        "261ae680fa699b3b951597fd57aa19c02ef735805acb104b93af69b36d928569",
    ),
    "majiabo/gpfm": PageFacts(
        "c2e0c6c7cea4d7ae67151c3375d780712f82254e", (SLIDE2VEC, RAW2FEATURES), "GPFM.pth",
        "ebde1a9d7d9098848034bcff30f8771034c8d0b69e32846fa266940f2fd4604c",
    ),
    "kaiko-ai/midnight": PageFacts(
        "adc6b15679c981cce6f9b018bbad09d16eeeda9f", (PAGE_ITSELF, SLIDE2VEC, LAZYSLIDE, RAW2FEATURES),
        "model.safetensors", "52c14f20386ca17c2af8a7bf32c31c352668a8fbf6aefc88d86be6eaa0c72ca1", "transformers",
    ),
    "sophontai/openmidnight": PageFacts(
        "87189e6674d397a14a5cd342c97b1a1615a185aa", (PAGE_ITSELF, TRIDENT, THUNDER, LAZYSLIDE),
        "teacher_checkpoint_load.pt",
    ),
    "{}vit_large_patch14_reg4_224{}".format(*_KAIKO): PageFacts(
        "fb802e347d2c59f05207b70ad75f7df30019c188", (TRIDENT, RAW2FEATURES), "",
        "149c8b21c60a7115a17572073b09ef142411c91b5194c84a99ebba8b83f20e69",
    ),
    "{}vit_base_patch8_224{}".format(*_KAIKO): PageFacts(
        "a4eb74de76274a5f3fe8260841a1b07a90930f43", (TRIDENT, THUNDER, EVA, HISTORY), "model.safetensors"
    ),
    "{}vit_base_patch16_224{}".format(*_KAIKO): PageFacts(
        "797c524a94c7fdae8ea33064d0ac6966ed8956bb", (TRIDENT, THUNDER, EVA, HISTORY), "model.safetensors"
    ),
    "{}vit_small_patch8_224{}".format(*_KAIKO): PageFacts(
        "003775444da0119f90ca63e2b86e454fd06ba797", (TRIDENT, THUNDER, EVA, HISTORY), "model.safetensors"
    ),
    "{}vit_small_patch16_224{}".format(*_KAIKO): PageFacts(
        "48560ea39969fe44b7b2ab057de01484243a7d43", (TRIDENT, THUNDER, EVA, HISTORY), "model.safetensors"
    ),
    "1aurent/vit_small_patch8_224.lunit_dino": PageFacts(
        "c23bc01cfbe022bc1f2a8a9306125a07818e4eb4", (EVA, SLIDE2VEC, LAZYSLIDE, RAW2FEATURES), "model.safetensors",
        "0b7e0236ce430064b31485bbb6f85e661dc5eca0cde709e8f04d59f1c2b23e0b",
    ),
    "1aurent/vit_small_patch16_224.lunit_dino": PageFacts(
        "9ed09909d93f9d39a092d8e49717ae48f9b44e6f", (EVA, LAZYSLIDE, RAW2FEATURES), "model.safetensors",
        "a19eb37d6cf038a7e8a34c7e9ec50698d02759b2f49dd799492f6ce7e4cb5937",
    ),
    "ramonk/distillpath-ks16-virchow2": _DISTILLPATH,
    "ramonk/distillpath-ks16-uni2h": _DISTILLPATH,
    "ramonk/distillpath-ks16-hopt0": _DISTILLPATH,
    "ramonk/distillpath-is16-virchow2": _DISTILLPATH,
    "ramonk/distillpath-is16-uni2h": _DISTILLPATH,
    "ramonk/distillpath-is16-hopt0": _DISTILLPATH,
})
"""By a page's owner and name, in lower case. The hashes and most revisions are raw2features'; OpenMidnight's was read
in a public release of adapters that were trained on it, which compared its tensors one by one; kaiko's smaller ones are
commits of their pages that hold the weights (later ones change the card).
"""
# fmt: on


def facts_of(repository: str) -> PageFacts:
    """What is known of a page, by its owner and name; nothing of one that the table does not have."""
    return PAGES.get(repository.lower(), NO_FACTS)
