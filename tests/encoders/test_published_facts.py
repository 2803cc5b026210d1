"""The table of encoders against what others have published, typed here once more: a wrong digit there fails here.

Nothing is taken from the code. Widths, sides of a patch's tokens and statistics are those of the pages and of the
tools that load the weights; gating, revisions and hashes those of raw2features' registry (0e69deb), except where a line
says otherwise. GigaPath-Flash and DistillPath have no revision, and no hash was published of some files.
"""

from dataclasses import dataclass

import pytest

from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import ENCODERS

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class Published:
    """What is published of an encoder: statistics, um/px (0: not stated), width, token's side in pixels, and its page's
    gating, revision and hash.
    """

    mean: Numbers
    std: Numbers
    mpp: float
    width: int
    token_px: int
    gated: bool
    revision: str
    sha256: str


IMAGENET: tuple[Numbers, Numbers] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES: tuple[Numbers, Numbers] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
H_OPTIMUS: tuple[Numbers, Numbers] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
HISTAI: tuple[Numbers, Numbers] = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
# kaiko-eva 0.4.5, slide2vec 7.1.4 and lazyslide-models 0.1.0; the registry has those of the port to timm
LUNIT_IO: tuple[Numbers, Numbers] = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
H0_MINI = (  # revision and hash: a test of another release of raw2features
    "5b5cc0505d19ae558270045eb0df8c34df4d9609",
    "5e4de45a6527a8160f7c21fe3105c987757efe30ce581e1f2cf5809476069ade",
)
MIDNIGHT = (
    "adc6b15679c981cce6f9b018bbad09d16eeeda9f",
    "52c14f20386ca17c2af8a7bf32c31c352668a8fbf6aefc88d86be6eaa0c72ca1",
)
NONE = ("", "")

# fmt: off
PUBLISHED = {
    "h-optimus-0": Published(*H_OPTIMUS, 0.5, 1536, 14, True, "b145cc1e6c6b30d3251aa8b1f844e6974188a743",
        "bf47b8467403079798661601b6ab06533be789da48d3f8b510aaefe2fbc55cd3"),
    "h-optimus-1": Published(*H_OPTIMUS, 0.5, 1536, 14, True, "3592cb220dec7a150c5d7813fb56e68bd57473b9",
        "c4f1e5b457ddf00679626053b0bf2899be6a19c3a04ad191c87ad1cdfd1abfe1"),
    "h0-mini": Published(*H_OPTIMUS, 0.5, 768, 14, True, *H0_MINI),
    "h0-mini-mean": Published(*H_OPTIMUS, 0.5, 1536, 14, True, *H0_MINI),
    "hibou-l": Published(*HISTAI, 0.5, 1024, 14, True, "31a3b9fee16554c8552cb643d311733bce8faf7c",
        "a63d1699448143ceccf2b7e1c4bf35b995c51f86ef8a6efb471af2eee210b79c"),
    "uni": Published(*IMAGENET, 0.5, 1024, 16, True, "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        "56ef09b44a25dc5c7eedc55551b3d47bcd17659a7a33837cf9abc9ec4e2ffb40"),
    "uni2-h": Published(*IMAGENET, 0.5, 1536, 14, True, "d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        "6e077eda234bebc595868d918d3458d9dd32a050199b0ff04443b2f46a0a3b1e"),
    "virchow2": Published(*IMAGENET, 0.5, 2560, 14, True, "3158645804b69e3f3bc4439d4116edddf0840a72",
        "8d6cea947eb2418c3b0dff48cfb9b238e47744ab0dfca21b2b0637b140769b4b"),
    "gigapath": Published(*IMAGENET, 0.5, 1536, 16, True, "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
        "877947214318afa9e011754b74bbc3894a1f480a253afc7bc8045b8321dedd63"),
    "phikon-v2": Published(*IMAGENET, 0.5, 1024, 16, False, "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd",
        "261ae680fa699b3b951597fd57aa19c02ef735805acb104b93af69b36d928569"),
    "kaiko-vitl14": Published(*HALVES, 0.5, 1024, 14, False, "fb802e347d2c59f05207b70ad75f7df30019c188",
        "149c8b21c60a7115a17572073b09ef142411c91b5194c84a99ebba8b83f20e69"),
    "gpfm": Published(*IMAGENET, 0.5, 1024, 14, False, "c2e0c6c7cea4d7ae67151c3375d780712f82254e",
        "ebde1a9d7d9098848034bcff30f8771034c8d0b69e32846fa266940f2fd4604c"),
    "virchow": Published(*IMAGENET, 0.5, 2560, 14, True, "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a",
        "3416891b37a2349a2d9ce7ecf00b64a6277011b41351436c1ceb0abb80805408"),
    "midnight-12k": Published(*HALVES, 0.5, 3072, 14, False, *MIDNIGHT),
    "midnight-12k-cls": Published(*HALVES, 0.5, 1536, 14, False, *MIDNIGHT),
    # revision: the page medarc/spectra-openmidnight-lora; gating and statistics: lazyslide-models 0.1.0
    "openmidnight": Published(*IMAGENET, 0.5, 1536, 14, True, "87189e6674d397a14a5cd342c97b1a1615a185aa", ""),
    # lazyslide-models 0.1.0
    "gigapath-flash": Published(*IMAGENET, 0.5, 384, 16, True, *NONE),
    "hibou-b": Published(*HISTAI, 0.5, 768, 14, True, "7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c",
        "2121db3cac83bc9abf13a458a37b0740e2ce725609ff8d4b8e6b6c56c30c3ab6"),
    "phikon": Published(*IMAGENET, 0.5, 768, 16, False, "057cc0295895c2df3dd7681a89680da6015cbefe",
        "d01642bfeb683c6b039622eca273e0a8e4208065a4595b63edba178c1c4cfa68"),
    # revisions: lists of files of their pages, which ask for nothing; of vitb8 seven digits were seen there
    "kaiko-vitb8": Published(*HALVES, 0.5, 768, 8, False, "a4eb74de76274a5f3fe8260841a1b07a90930f43", ""),
    "kaiko-vitb16": Published(*HALVES, 0.5, 768, 16, False, "797c524a94c7fdae8ea33064d0ac6966ed8956bb", ""),
    "kaiko-vits8": Published(*HALVES, 0.5, 384, 8, False, "003775444da0119f90ca63e2b86e454fd06ba797", ""),
    "kaiko-vits16": Published(*HALVES, 0.5, 384, 16, False, "48560ea39969fe44b7b2ab057de01484243a7d43", ""),
    "lunit-vits8": Published(*LUNIT_IO, 0.5, 384, 8, False, "c23bc01cfbe022bc1f2a8a9306125a07818e4eb4",
        "0b7e0236ce430064b31485bbb6f85e661dc5eca0cde709e8f04d59f1c2b23e0b"),
    "lunit-vits16": Published(*LUNIT_IO, 0.5, 384, 16, False, "9ed09909d93f9d39a092d8e49717ae48f9b44e6f",
        "a19eb37d6cf038a7e8a34c7e9ec50698d02759b2f49dd799492f6ce7e4cb5937"),
    # pages of DistillPath, which state the statistics of each
    "distillpath-ks16-virchow2": Published(*HALVES, 0.0, 384, 16, False, *NONE),
    "distillpath-ks16-uni2h": Published(*HALVES, 0.0, 384, 16, False, *NONE),
    "distillpath-ks16-hopt0": Published(*HALVES, 0.0, 384, 16, False, *NONE),
    "distillpath-is16-virchow2": Published(*IMAGENET, 0.0, 384, 16, False, *NONE),
    "distillpath-is16-uni2h": Published(*IMAGENET, 0.0, 384, 16, False, *NONE),
    "distillpath-is16-hopt0": Published(*IMAGENET, 0.0, 384, 16, False, *NONE),
}
# fmt: on


def token_side(name: str) -> int:
    """Side of a token in pixels: an argument of the architecture, or in its timm name."""
    spec = ENCODERS[name]
    of_name = spec.architecture.partition("patch")[2].partition("_")[0]
    return int(spec.arguments.get("patch_size", of_name))


def test_each_encoder_of_the_table_is_typed_here() -> None:
    assert list(PUBLISHED) == list(ENCODERS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_says_what_is_published(name: str) -> None:
    spec, facts, published = ENCODERS[name], facts_of(ENCODERS[name].page), PUBLISHED[name]
    found = Published(
        spec.mean, spec.std, spec.mpp, spec.width, token_side(name), spec.gated, facts.revision, facts.sha256
    )
    assert found == published
