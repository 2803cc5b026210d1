"""Adapters give the student's embeddings to tools of others: run against stand-ins with the interfaces of those tools.

The stand-ins are written after kaiko-eva 0.4.5, PathoROB (pathorob/models/utils.py), plismbench
(plismbench/models/extractor.py, utils.py), lazyslide-models 0.1.0 (base.py, _model_registry.py), TRIDENT
(trident/patch_encoder_models/load.py), thunder-bench 0.2.2 (thunder/models/pretrained_models.py, utils.py) and
slide2vec 7.1.4 (slide2vec/encoders/base.py) as read in 2026-11.
"""

import importlib
import importlib.util
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from support.stores import make_patches, student_folder
from support.students import SPECS, TINY, disturb, random_projector, write_exported
from torchvision.transforms import v2

from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import table as encoders
from pipeline.encoders.build import build_encoder
from pipeline.student.adapters import ADAPTERS, FOLDERS_SINCE, OLDEST_TIMM, oldest_timm, write_adapters

PATCH_PX = 42
STUDENTS = ("pooled", "cls", "cls+mean")


@pytest.fixture(scope="module", params=STUDENTS)
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An exported student's folder with its adapters, and the student by this project."""
    root = tmp_path_factory.mktemp("adapted")
    names = {
        "pooled": student_folder(root / "source", "vit_small_patch14_reg4_dinov2", PATCH_PX, **TINY),
        "cls": "tiny-swiglu",
        "cls+mean": "tiny-mean",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "ENCODERS", MappingProxyType({**encoders.ENCODERS, **SPECS}))
        built = build_encoder(names[request.param], SCRATCH, PATCH_PX)
    disturb(built.module.model)
    folder = root / "my student"
    write_exported(folder, built.module.model, built.spec, random_projector(built.spec.width), "card")
    exported = build_encoder(f"local-dir:{folder}", PRETRAINED, PATCH_PX)
    assert exported.spec.embedding == ("pooled" if request.param == "pooled" else request.param)
    write_adapters(folder, exported.spec)
    return folder, exported


def expected_of(built: Any, patches: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        embeddings: torch.Tensor = built.module(torch.from_numpy(patches))
    assert embeddings.std(0).min() > 1e-6  # patches differ: agreement means something
    return embeddings


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


class ModelWrapper(ABC):
    """PathoROB's."""

    @abstractmethod
    def get_model(self) -> Any: ...

    @abstractmethod
    def get_preprocess(self) -> Any: ...

    @abstractmethod
    def extract(self, data: Any) -> torch.Tensor: ...


class Extractor(ABC):
    """plismbench's."""

    _feature_extractor: torch.nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transform: Any = lambda x: x

    @property
    def feature_extractor(self) -> torch.nn.Module:
        return self._feature_extractor

    @feature_extractor.setter
    def feature_extractor(self, value: torch.nn.Module) -> None:
        self._feature_extractor = value

    @property
    def transform(self) -> Any:
        return self._transform

    @transform.setter
    def transform(self, value: Any) -> None:
        self._transform = value

    @abstractmethod
    def __call__(self, images: torch.Tensor) -> NDArray[np.float32]: ...


class MixedPrecision(torch.nn.Module):
    """plismbench's wrapper: autocast, and back to float32."""

    def __init__(self, wrapped: torch.nn.Module) -> None:
        super().__init__()
        self.module = wrapped

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.amp.autocast("cpu"):
            output = self.module(images)
        assert isinstance(output, torch.Tensor)
        return output.float()


def prepare_module(wrapped: torch.nn.Module, device: Any = None, mixed_precision: bool = True) -> tuple[Any, str]:
    """plismbench's, on a CPU."""
    assert device == -1
    wrapped = MixedPrecision(wrapped) if mixed_precision else wrapped
    return wrapped.to("cpu").eval().requires_grad_(False), "cpu"


class CustomInferenceEncoder(torch.nn.Module):
    """TRIDENT's, with its base class: sets everything to nothing by `_build` first."""

    def __init__(self, enc_name: str, model: Any, transforms: Any, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.eval_transforms, self.precision = None, None, None
        self.enc_name, self.model, self.eval_transforms, self.precision = enc_name, model, transforms, precision

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.model(x)
        return z


class PretrainedModel(torch.nn.Module, ABC):
    """THUNDER's."""

    @abstractmethod
    def get_transform(self) -> Any: ...

    @abstractmethod
    def get_linear_probing_embeddings(self, x: Any) -> torch.Tensor: ...

    @abstractmethod
    def get_segmentation_embeddings(self, x: Any) -> torch.Tensor: ...


class TorchTileEncoder:
    """slide2vec's: owns the module, and builds a transform that only normalises."""

    def __init__(
        self, model: Any, *, encode_dim: int, input_size: int, mean: Any, std: Any, output_variant: str | None = None
    ) -> None:
        self._model, self.encode_dim, self.input_size = model.eval(), encode_dim, input_size
        self._mean, self._std = tuple(mean), tuple(std)

    def get_normalization_transform(self) -> Any:
        to_float = v2.ToDtype(torch.float32, scale=True)
        return v2.Compose([v2.ToImage(), to_float, v2.Normalize(self._mean, self._std)])

    def encode_tiles(self, batch: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self._model(batch)
        return embeddings


REGISTERED: dict[str, tuple[type, dict[str, Any]]] = {}
"""slide2vec's registry: class and what was said of it, by name."""


def register_encoder(name: str, *, supported_spacing_um: float | None, **told: Any) -> Any:
    """slide2vec's decorator. A name may be used once."""

    def register(made: type) -> type:
        assert name not in REGISTERED
        REGISTERED[name] = (made, {"supported_spacing_um": supported_spacing_um, **told})
        return made

    return register


class ImageModel(ABC):
    """LazySlide's: callable, and named by its class unless that says otherwise."""

    model: Any

    @property
    def name(self) -> str:
        return type(self).__name__

    def to(self, device: str) -> "ImageModel":
        self.model.to(device)
        return self

    @abstractmethod
    def encode_image(self, image: Any) -> Any: ...


def register(key: str, task: str | None = None, *, encode_dim: int | None = None) -> Any:
    """LazySlide's decorator, into the same registry."""
    return register_encoder(key, supported_spacing_um=None, task=task, encode_dim=encode_dim)


TOOLS: dict[str, dict[str, dict[str, Any]]] = {
    "lazyslide": {
        "lazyslide_models": {
            "ImageModel": ImageModel,
            "ModelTask": SimpleNamespace(vision="vision"),
            "register": register,
        }
    },
    "pathorob": {"pathorob": {}, "pathorob.models": {}, "pathorob.models.utils": {"ModelWrapper": ModelWrapper}},
    "plismbench": {
        "plismbench": {},
        "plismbench.models": {},
        "plismbench.models.extractor": {"Extractor": Extractor},
        "plismbench.models.utils": {"DEFAULT_DEVICE": -1, "prepare_module": prepare_module},
    },
    "slide2vec": {
        "slide2vec": {},
        "slide2vec.encoders": {},
        "slide2vec.encoders.base": {"TorchTileEncoder": TorchTileEncoder},
        "slide2vec.encoders.registry": {"register_encoder": register_encoder},
    },
    "thunder": {"thunder": {}, "thunder.models": {"PretrainedModel": PretrainedModel}},
    "trident": {"trident": {}, "trident.patch_encoder_models": {"CustomInferenceEncoder": CustomInferenceEncoder}},
}


@pytest.fixture
def load(student: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import an adapter of the student from its file, with the stand-ins of its tool and nothing of this project."""
    folder, _ = student
    ours = {name for name in sys.modules if name.split(".")[0] in ("pipeline", "stages")}

    def load_adapter(name: str, tool: str = "") -> ModuleType:
        for place, members in TOOLS.get(tool, {}).items():
            monkeypatch.setitem(sys.modules, place, module(place, **members))
        spec = importlib.util.spec_from_file_location(name, folder / "adapters" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    yield load_adapter
    assert {name for name in sys.modules if name.split(".")[0] in ("pipeline", "stages")} == ours


def test_each_adapter_is_short_compiles_and_needs_nothing_of_ours(student: tuple[Path, Any]) -> None:
    folder, _ = student
    written = {path.name: path.read_text() for path in (folder / "adapters").iterdir()}
    assert written.keys() == set(ADAPTERS)
    for name, text in written.items():
        assert len(text.splitlines()) <= 110, name
        assert max(map(len, text.splitlines())) <= 120, name
        assert "pipeline" not in text
        assert str(folder) not in text
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_the_oldest_timm_is_that_of_the_architecture_and_of_the_way_to_load() -> None:
    for name in ("vit_base_patch16_224", "vit_giant_patch14_reg4_dinov2", "swinv2_cr_tiny_224"):
        assert oldest_timm(name) == OLDEST_TIMM
        assert oldest_timm(name, as_folder=True) == FOLDERS_SINCE
    assert oldest_timm("vit_small_patch16_dinov3.lvd1689m") == oldest_timm("vit_small_patch16_dinov3") == "1.0.20"
    assert oldest_timm("vit_small_patch16_dinov3", as_folder=True) == "1.0.20"
    assert oldest_timm("swin_tiny_patch4_window7_224") == OLDEST_TIMM
    assert oldest_timm("swin_tiny_patch4_window7_224", as_folder=True) == "1.0.31"
    assert oldest_timm("test_vit") == "1.0.8"  # as a number it is before 1.0.16, as a word behind it
    assert oldest_timm("test_vit", as_folder=True) == FOLDERS_SINCE
    assert oldest_timm("of_tomorrow") == oldest_timm("of_tomorrow", as_folder=True) == timm.__version__


def test_the_table_of_versions_has_every_architecture_of_the_encoders() -> None:
    assert {oldest_timm(spec.architecture) for spec in encoders.ENCODERS.values()} == {OLDEST_TIMM}


def test_an_adapter_names_the_timm_that_it_needs(
    student: tuple[Path, Any], load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "is_model", lambda name: False)
    with pytest.raises(RuntimeError, match=rf"has no \w+: {OLDEST_TIMM} or later"):
        load("eva_student").load_student()


def test_pathorob_extracts_the_students_embeddings(student: tuple[Path, Any], load: Any) -> None:
    patches = make_patches(4, PATCH_PX)
    wrapper = load("pathorob_model", "pathorob").StudentModelWrapper()
    assert isinstance(wrapper, ModelWrapper)
    wrapper.get_model().eval()
    wrapper.get_model().to("cpu")
    batch = torch.utils.data.default_collate([wrapper.get_preprocess()(Image.fromarray(patch)) for patch in patches])
    torch.testing.assert_close(wrapper.extract(batch), expected_of(student[1], patches), rtol=1e-5, atol=1e-5)


def test_plismbench_extracts_the_students_embeddings(student: tuple[Path, Any], load: Any) -> None:
    patches = make_patches(4, PATCH_PX)
    adapter = load("plismbench_extractor", "plismbench")
    extractor = adapter.StudentExtractor(device=-1)
    assert isinstance(extractor, Extractor)
    transform = pickle.loads(pickle.dumps(extractor.transform))  # as a loader's worker gets it
    images = torch.stack([transform(patch) for patch in patches])  # arrays, as its HDF5 files hold them
    expected = expected_of(student[1], patches)
    found = extractor(images)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    mixed = adapter.StudentExtractor(device=-1, mixed_precision=True)(images)
    assert mixed.dtype == np.float32
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(mixed), expected)
    assert cosine.min() > 0.99
    assert np.abs(mixed - found).max() > 1e-5 * np.abs(found).max()  # it went through bfloat16


def test_trident_embeds_as_the_student(student: tuple[Path, Any], load: Any) -> None:
    folder, built = student
    patches = make_patches(4, PATCH_PX)
    encoder = load("trident_encoder", "trident").build_encoder()
    assert encoder.enc_name == folder.name
    assert encoder.precision == torch.float32
    encoder.to("cpu")
    encoder.eval()
    images = torch.stack([encoder.eval_transforms(Image.fromarray(patch)) for patch in patches])
    torch.testing.assert_close(encoder(images), expected_of(built, patches), rtol=1e-5, atol=1e-5)


def test_thunder_finds_one_model_that_gives_embeddings_and_tokens(student: tuple[Path, Any], load: Any) -> None:
    folder, built = student
    loaded = load("thunder_model", "thunder")
    classes = [found for found in vars(loaded).values() if isinstance(found, type)]
    (made,) = [found for found in classes if issubclass(found, PretrainedModel) and found is not PretrainedModel]
    model = made()
    assert model.name == folder.name
    patches = make_patches(4, PATCH_PX)
    images = torch.stack([model.get_transform()(Image.fromarray(patch)) for patch in patches])
    embeddings = model.get_linear_probing_embeddings(images)
    assert embeddings.shape == (4, model.emb_dim)
    torch.testing.assert_close(embeddings, expected_of(built, patches), rtol=1e-5, atol=1e-5)
    tokens = model.get_segmentation_embeddings(images)
    assert tokens.shape == (4, (PATCH_PX // 14) ** 2, model.emb_dim_seg)
    assert model.vlm is False  # THUNDER's tasks ask every model
    features = built.module.model.forward_features(images)
    prefix = features.shape[1] - tokens.shape[1]
    torch.testing.assert_close(tokens, features[:, prefix:], rtol=1e-5, atol=1e-5)


def test_slide2vec_registers_an_encoder_that_embeds_as_the_student(
    student: tuple[Path, Any], load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, built = student
    monkeypatch.setattr(sys.modules[__name__], "REGISTERED", {})
    load("slide2vec_encoder", "slide2vec")
    ((name, (made, told)),) = REGISTERED.items()
    assert name == folder.name
    assert (told["input_size"], told["encode_dim"]) == (PATCH_PX, built.spec.width)
    assert told["precision"] == "fp32"
    encoder = made(output_variant=None)
    patches = make_patches(4, PATCH_PX)
    for transform in (encoder.get_transform(), encoder.get_normalization_transform()):
        images = torch.stack([transform(Image.fromarray(patch)) for patch in patches])
        torch.testing.assert_close(encoder.encode_tiles(images), expected_of(built, patches), rtol=1e-5, atol=1e-5)


def test_lazyslide_makes_the_student_by_its_name(
    student: tuple[Path, Any], load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, built = student
    monkeypatch.setattr(sys.modules[__name__], "REGISTERED", {})
    load("lazyslide_model", "lazyslide")
    made, told = REGISTERED[folder.name]
    assert (told["task"], told["encode_dim"]) == ("vision", built.spec.width)
    model = made(model_path=None, token=None)  # as `feature_extraction` calls it
    assert model.name == folder.name
    model.to("cpu")
    patches = make_patches(4, PATCH_PX)
    transform = pickle.loads(pickle.dumps(model.get_transform()))  # as a loader's worker gets it
    images = torch.stack([transform(patch) for patch in patches])
    torch.testing.assert_close(model.encode_image(images), expected_of(built, patches), rtol=1e-5, atol=1e-5)


def test_evas_configuration_gives_the_students_embeddings(student: tuple[Path, Any], load: Any) -> None:
    folder, built = student
    config = yaml.safe_load((folder / "adapters" / "eva.yaml").read_text())
    assert config.keys() == {"trainer", "model", "data"}
    writer = config["trainer"]["init_args"]["callbacks"][-1]["init_args"]
    backbone = writer["backbone"]
    assert backbone["class_path"] == "eva.models.ModelFromFunction"
    name, function = backbone["init_args"]["path"].rsplit(".", 1)
    model = getattr(load(name), function)()
    assert config["model"]["init_args"]["head"]["init_args"] == {"in_features": built.spec.width, "out_features": 9}
    place, loss = config["model"]["init_args"]["criterion"].rsplit(".", 1)
    criterion = getattr(importlib.import_module(place), loss)
    assert torch.isclose(criterion(torch.tensor([[1.0, 2.0]]), torch.tensor([1])), torch.tensor(0.3132617))
    data = config["data"]["init_args"]["datasets"]
    assert data["train"]["init_args"]["root"] == writer["output_dir"]
    assert [part["init_args"]["split"] for part in data["predict"]] == ["train", "val"]
    images = data["predict"][1]["init_args"]["transforms"]
    assert images["class_path"] == "eva.vision.data.transforms.common.ResizeAndCrop"
    told = images["init_args"]
    transform = v2.Compose(
        [  # what ResizeAndCrop of kaiko-eva 0.4.5 does with a uint8 image (3, H, W)
            v2.Resize(size=told["size"]),
            v2.CenterCrop(size=told["size"]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=told["mean"], std=told["std"]),
        ]
    )
    patches = make_patches(4, PATCH_PX)
    batch = torch.stack([transform(v2.functional.to_image(patch)) for patch in patches])
    torch.testing.assert_close(model(batch), expected_of(built, patches), rtol=1e-5, atol=1e-5)
