"""Options of `g2l plan`, each defined once: name, type, default, bounds and help."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.base.errors import ConfigError
from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.config.base import Config, of_record, option
from pipeline.config.budget import FORMS, Budget, parse_budget
from pipeline.config.case_lists import absolute_lists, exclude_cases_option
from pipeline.config.class_rules import (
    ClassRules,
    clean_class,
    kept_quotas,
    ordered_classes,
    ordered_quotas,
    parse_quota,
)
from pipeline.config.groups import (
    AnnotationOrigin,
    ClassOverlap,
    Decode,
    Grid,
    Resampling,
    SampleMethod,
    Sampling,
    Tiling,
    TissueFiles,
)
from pipeline.config.model_names import absolute_model
from pipeline.config.recipes import RecipeName, recipe_option, recipe_values
from pipeline.config.staging import (
    STAGES_OBJECTS,
    StageFolder,
    check_place,
    check_stage_gb,
    stage_dir_option,
    stage_folder,
    stage_gb_option,
)
from pipeline.config.tissue_rules import LATER_RULES, MAX_ARTEFACT, RuleName, in_rule_order, rules_in_use


class PlanConfig(Config):
    """Options of `g2l plan`. Where the paper is silent, the defaults are our choice."""

    in_buckets: ClassVar[frozenset[str]] = frozenset({"slides_root"})

    recipe: RecipeName = recipe_option()
    slides_root: Path | None = option(
        None,
        description="Folder, or s3://BUCKET/..., that relative paths start from [the manifest's folder].",
        decides="nothing",
    )
    patches_per_slide: int = option(1000, ge=1, description="Maximum number of patches sampled per slide.")
    sample: SampleMethod = option(
        "uniform",
        description="How a slide's patches are drawn. uniform: each as likely as any other; spread: far apart on the "
        "slide, so that they leave no large holes; class: by quotas of the classes of its annotations (--class-quota); "
        "cluster: more candidates, clustered by colour and texture over all slides, and as many of each cluster "
        "(--sampler-encoder: by an encoder).",
        added=True,
    )
    candidates: int | None = option(
        None,
        ge=2,
        le=100,
        description="With --sample cluster: patches that are read and described for each one that is taken [4].",
        added=True,
    )
    clusters: int | None = option(
        None, ge=2, le=256, description="With --sample cluster: clusters, each of which is split in 4 [16].", added=True
    )
    sampler_encoder: str | None = option(
        None,
        description="With --sample cluster: NAME[@WEIGHTS] of a small encoder that describes the candidates, in place "
        "of colour and texture; `g2l models` lists names, and any timm name goes with a file of weights [none].",
        added=True,
    )
    device: str = option(
        "auto",
        description="Of --sampler-encoder: cuda, cuda:1, mps, cpu or auto.",
        decides="nothing",
        in_plan=False,
        added=True,
    )
    budget: str | None = option(
        None,
        description=f"What all slides may come to, in place of --patches-per-slide: {FORMS}. Slides share it evenly "
        "[none].",
        added=True,
    )
    budget_width: int | None = option(
        None,
        ge=1,
        description="Dimensions of the embeddings that a budget in bytes counts, 2 bytes each; extract-teacher knows "
        "its own [1536, the paper's teacher].",
        added=True,
    )
    budget_pixels: Literal["jpegxl", "jpeg", "none"] | None = option(
        None,
        description="How the store will keep the patches that a budget in bytes counts; extract-teacher knows its own "
        "[jpegxl].",
        added=True,
    )
    rate: float | None = option(
        None,
        gt=0,
        le=1e6,
        description="Patches a second that stage one does, with all their views; for a budget in time [see "
        "--rate-from].",
        added=True,
    )
    rate_from: Path | None = option(
        None,
        description="Store that was made with the same teacher, views and machine: its ledgers, those of rounds of "
        "views too, say the rate, for a budget in time [none].",
        decides="effect",
        added=True,
    )
    max_slides: int | None = option(None, ge=1, description="Use a random subset of this many slides [all].")
    patch_px: int = option(224, ge=16, le=4096, description="Side of a patch, pixels.")
    tile_px: int | None = option(
        None,
        ge=16,
        le=4096,
        description="Side of the tile around a patch, for views that crop; the grid is of tiles [the patch only].",
    )
    mpp: float = option(0.5, ge=MIN_MPP, le=MAX_MPP, description="Resolution of a patch, um per pixel.")
    stride_px: int | None = option(
        None, ge=1, description="Grid spacing in patch pixels [tile-px or patch-px: no overlap]."
    )
    min_tissue: float = option(0.5, ge=0, le=1, description="Minimum share of a patch's area that must be tissue.")
    max_artefact: float = option(
        MAX_ARTEFACT,
        ge=0,
        le=1,
        description="Most of a patch's area that rules for artefacts may have dropped, though the rest is tissue; 1: "
        "any share, as in earlier versions.",
        added=True,
        earlier=1.0,
    )
    allow_upsampling: bool = option(False, description="Use slides more than 5 % coarser than --mpp.")
    tiling: Tiling | None = option(
        None,
        description="level0: cut every slide at its level 0 and drop small groups of patches, as the paper's authors "
        "do; --mpp then means nothing [cut at --mpp].",
    )
    resampling: Resampling = option(
        "lanczos-torch",
        description="Who reduces patches: torch (2.12 or later), or Pillow, which takes four times as long and differs "
        "by at most two grey levels. Slides that are not read at level 0 are always Pillow's.",
        added=True,
        earlier="lanczos-pillow",
    )
    decode: Decode = option(
        "full",
        description="half: decode JPEG tiles at half their size where patches are reduced by 2 or more: faster, with "
        "other pixels; slides that cannot be are decoded in full.",
        added=True,
    )
    skip_rule: list[RuleName] = option(
        [],
        description="A rule of the tissue finder that is not to run; repeatable. docs/tissue.md has them.",
        added=True,
        earlier=LATER_RULES,
    )
    use_rule: list[RuleName] = option([], description="A rule to run that is off by default; repeatable.", added=True)
    val_fraction: float = option(
        0.1, ge=0, lt=1, description="Held-out fraction of the cases, by a hash of the case id."
    )
    val_strip: float | None = option(
        None,
        gt=0,
        lt=1,
        description="Hold out a strip of this fraction across every slide, not whole cases; for a single slide.",
    )
    include: list[str] = option(
        [],
        description="Keep only patches with --min-class of their area in this class of the slide's annotations; "
        "repeatable: in these classes together. They must be on tissue as well.",
        added=True,
    )
    exclude: list[str] = option(
        [],
        description="Drop patches with more than --max-excluded of their area in this class of the slide's "
        "annotations; repeatable.",
        added=True,
    )
    min_class: float = option(
        0.5, gt=0, le=1, description="Share of a patch's area from which on it is of a class.", added=True
    )
    max_excluded: float = option(
        0.0, ge=0, lt=1, description="Largest share of a patch's area in classes of --exclude.", added=True
    )
    class_quota: list[str] = option(
        [],
        description="CLASS=SHARE of a slide's patches with --sample class; repeatable; shares are relative to each "
        "other. Without it each class that the slide has gets the same.",
        added=True,
    )
    class_overlap: ClassOverlap | None = option(
        None,
        description="With --sample class: which class a patch counts for where classes overlap. smaller: the smaller "
        "one lies on top, as where necrosis is drawn within tumour; most: the one that has most of it, the first by "
        "name of equal ones, as in earlier versions [smaller].",
        added=True,
    )
    annotation_origin: AnnotationOrigin = option(
        "auto",
        description="Where coordinates of annotations and of --tissue-from count from, on slides that say which part "
        "was scanned. scan: that part's corner; slide: the slide's; auto: scan for GeoJSON of QuPath, which crops such "
        "slides, and slide for all other files.",
        added=True,
    )
    tissue_from: Path | None = option(
        None,
        description="Folder with a SLIDE_ID.geojson for every slide, whose class Tissue is its tissue, in place of the "
        "tissue finder: what --tissue-geojson wrote, corrected in QuPath.",
        decides="effect",
        in_plan=False,
    )
    tissue_geojson: Path | None = option(
        None,
        description="Folder to write each slide's tissue to, as GeoJSON that QuPath opens [none].",
        decides="nothing",
        in_plan=False,
    )
    balance: Literal["center"] | None = option(
        None,
        description="center: share the same number of patches equally between centres, as far as their slides have "
        "them; slides of small centres then give more than --patches-per-slide [none].",
        added=True,
    )
    exclude_cases: list[str] | None = exclude_cases_option(decides="nothing", in_plan=False)
    check_files: bool = option(
        True, description="Compare each slide with the manifest's sha256, if it gives one.", decides="effect"
    )
    workers: int | None = option(
        None, ge=1, description="Threads that read slides [number of cores].", decides="nothing", in_plan=False
    )
    stage_dir: Path | None = stage_dir_option(STAGES_OBJECTS)
    stage_gb: float | None = stage_gb_option()
    overlays: Path | None = option(
        None, description="Folder for a picture of every slide [none].", decides="nothing", in_plan=False
    )
    seed: int = option(0, ge=0, description="Seed of the sample.")

    _check_slides_root = field_validator("slides_root")(check_place)
    _check_stage_gb = field_validator("stage_gb")(check_stage_gb)

    @field_validator("tile_px")
    @classmethod
    def check_tile(cls, tile_px: int | None, others: ValidationInfo) -> int | None:
        """See that the patch fits into the tile. One of its size is none, and turns off the tile of a recipe: records
        keep it, for an absent value would let the recipe's return.
        """
        patch_px = others.data.get("patch_px", 0)  # 0: it is wrong itself
        if tile_px is not None and tile_px < patch_px:
            raise PydanticCustomError("tile", f"should not be less than --patch-px, {patch_px}; {patch_px} is no tile")
        return tile_px

    @field_validator("decode")
    @classmethod
    def check_decode(cls, decode: Decode, others: ValidationInfo) -> Decode:
        """See that half is not asked for where no patch is reduced."""
        if decode == "half" and others.data.get("tiling"):
            raise PydanticCustomError(
                "decode", "does not go with --tiling level0, which reduces no patch; leave out one"
            )
        return decode

    @field_validator("tissue_geojson")
    @classmethod
    def check_tissue_folder(cls, folder: Path | None, others: ValidationInfo) -> Path | None:
        """See that files of tissue are not written over those that are read."""
        read_from = others.data.get("tissue_from")
        if folder is not None and read_from is not None and folder.absolute() == read_from.absolute():
            raise PydanticCustomError("tissue_folder", "is the folder of --tissue-from; choose another")
        return folder

    @field_validator("include", "exclude")
    @classmethod
    def order_classes(cls, names: list[str], others: ValidationInfo) -> list[str]:
        """Each class once, by its clean name and in order, so that the same choice is the same plan. Records keep their
        spelling, and so the plan's hash.
        """
        if not all(map(clean_class, names)):
            raise PydanticCustomError("class_name", "a class without a name")
        return names if of_record(others) else ordered_classes(names)

    @field_validator("class_quota")
    @classmethod
    def order_quotas(cls, quotas: list[str], others: ValidationInfo) -> list[str]:
        """Each quota in one spelling and in order, but for those of records; they need the sample that they are quotas
        of.
        """
        if quotas and others.data.get("sample", "class") != "class":
            raise PydanticCustomError("quota", "is for --sample class")
        try:
            return kept_quotas(quotas) if of_record(others) else ordered_quotas(quotas)
        except ValueError as error:
            raise PydanticCustomError("quota", "{why}", {"why": str(error)}) from None

    @field_validator("class_overlap")
    @classmethod
    def check_overlap(cls, overlap: ClassOverlap | None, others: ValidationInfo) -> ClassOverlap | None:
        """See that it goes with a sample by class, which says it; a record that does not is of an earlier version."""
        sample = others.data.get("sample")
        if overlap is not None and sample not in ("class", None):
            raise PydanticCustomError("overlap", "is for --sample class")
        return "smaller" if overlap is None and sample == "class" and not of_record(others) else overlap

    @field_validator("balance")
    @classmethod
    def check_balance(cls, balance: Literal["center"] | None, others: ValidationInfo) -> Literal["center"] | None:
        """See that only one of two options says how the patches are shared between slides."""
        if balance and others.data.get("budget"):
            raise PydanticCustomError("balance", "does not go with --budget, which shares evenly; leave out one")
        return balance

    @field_validator("skip_rule", "use_rule")
    @classmethod
    def order_rules(cls, names: list[RuleName]) -> list[RuleName]:
        """Each rule once, in order, so that the same choice is the same plan."""
        return in_rule_order(names)

    @field_validator("use_rule")
    @classmethod
    def check_rules(cls, use_rule: list[RuleName], others: ValidationInfo) -> list[RuleName]:
        """See that no rule is turned both on and off."""
        if both := set(use_rule) & set(others.data.get("skip_rule", [])):
            raise PydanticCustomError("rules", f"--skip-rule turns {min(both)} off; leave out one")
        return use_rule

    @field_validator("budget", mode="before")
    @classmethod
    def check_budget(cls, budget: Any) -> Any:
        """The budget as it is kept; a number in a TOML file is one of patches."""
        is_number = isinstance(budget, int) and not isinstance(budget, bool)
        text = str(budget) if is_number else budget
        if not isinstance(text, str):
            return text
        try:
            return parse_budget(text).text
        except ValueError as error:
            raise PydanticCustomError("budget", "{words}", {"words": str(error)}) from None

    @field_validator("budget_width", "budget_pixels", "rate", "rate_from")
    @classmethod
    def check_price(cls, value: Any, others: ValidationInfo) -> Any:
        """See that what prices a budget goes with one of its kind, and that a budget in time has a rate."""
        if "budget" not in others.data:  # it is wrong itself
            return value
        text, name = others.data["budget"], str(others.field_name)
        kind, wanted = text and parse_budget(text).kind, "bytes" if name.startswith("budget") else "seconds"
        if value is not None and kind != wanted:
            needed = {"bytes": "bytes, such as --budget 200GB", "seconds": "time, such as --budget 12h"}[wanted]
            raise PydanticCustomError("price", "goes with a budget in {needed}", {"needed": needed})
        if name == "rate_from" and kind == "seconds" and (value is None) == (others.data.get("rate") is None):
            words = (
                f"--budget {text} is of time and needs a rate: give --rate, patches a second, or --rate-from, a store"
            )
            both = "--rate and --rate-from both say how fast stage one is; a budget in time needs one, and not both"
            raise PydanticCustomError("rate", "{words}", {"words": words if value is None else both})
        return value

    @classmethod
    def build(cls, values: dict[str, Any], *, is_record: bool = False) -> Self:
        """As in `Config`. A recipe's number of patches a slide gives way to a budget; one that the user gives does not.

        Raises:
            ConfigError: as there, or a budget beside --patches-per-slide.
        """
        number = values.get("patches_per_slide")
        if values.get("budget") is not None and number not in (
            None,
            recipe_values(values.get("recipe"), "plan").get("patches_per_slide"),
        ):
            raise ConfigError("--budget and --patches-per-slide both say how many patches there are. Give one of them")
        return super().build(values, is_record=is_record)

    def record(self) -> dict[str, Any]:
        """As in `Config`; with a budget the number of patches a slide means nothing."""
        values = super().record()
        return {name: value for name, value in values.items() if name != "patches_per_slide" or not self.budget}

    @field_validator("candidates", "clusters", "sampler_encoder")
    @classmethod
    def check_clustered(cls, value: int | str | None, others: ValidationInfo) -> int | str | None:
        """See that what only clusters use goes with them."""
        if value is not None and others.data.get("sample", "cluster") != "cluster":
            raise PydanticCustomError("cluster", "goes with --sample cluster")
        return value

    @field_validator("budget", "balance")
    @classmethod
    def check_apart_from_clusters(cls, value: str | None, others: ValidationInfo) -> str | None:
        """See that clusters, which share out the number of the uniform draw, are not asked to share out another."""
        if value is not None and others.data.get("sample") == "cluster":
            raise PydanticCustomError("cluster", "does not go with --sample cluster; leave out one")
        return value

    @property
    def parsed_budget(self) -> Budget | None:
        """What all slides may come to."""
        return parse_budget(self.budget) if self.budget else None

    @property
    def cuts_late(self) -> bool:
        """Whether the patches of a slide are chosen once all slides are known."""
        return bool(self.budget or self.balance or self.sample == "cluster")

    @property
    def has_tiles(self) -> bool:
        """Whether more than the patch is read, so that views can crop."""
        return self.tile_px not in (None, self.patch_px)

    def deciding(self) -> dict[str, Any]:
        """As in `Config`; a tile of the patch's size is none."""
        values = super().deciding()
        return values if self.has_tiles else {name: value for name, value in values.items() if name != "tile_px"}

    @property
    def read_px(self) -> int:
        """Side of what is read from a slide for each row, pixels: the tile, or the patch where there is none."""
        return self.tile_px or self.patch_px

    @property
    def grid(self) -> Grid:
        """The grid of tiles, or of patches where there are none."""
        stride_px = self.stride_px or self.read_px
        return Grid(
            self.read_px,
            self.mpp,
            stride_px,
            self.min_tissue,
            self.allow_upsampling,
            self.tiling,
            self.resampling,
            self.decode,
            self.rules,
            self.max_artefact,
        )

    @property
    def rules(self) -> tuple[RuleName, ...]:
        """The rules by which tissue is found."""
        return rules_in_use(self.skip_rule, self.use_rule)

    @property
    def sampling(self) -> Sampling:
        """How many patches of a slide are taken, and which are held out; all, where a budget or the balance between
        centres cuts them later.
        """
        number = None if self.budget or self.balance else self.patches_per_slide
        quotas = tuple(parse_quota(text) for text in self.class_quota)
        include, exclude = tuple(ordered_classes(self.include)), tuple(ordered_classes(self.exclude))
        is_smaller_on_top = self.class_overlap == "smaller"
        rules = ClassRules(include, exclude, self.min_class, self.max_excluded, quotas, is_smaller_on_top)
        drawn = Sampling(number, self.seed, self.val_fraction, self.val_strip, self.sample, rules)
        return replace(
            drawn,
            candidates=self.candidates or Sampling.candidates,
            clusters=self.clusters or Sampling.clusters,
            by_encoder=self.sampler_encoder is not None,
        )

    @property
    def stage_folder(self) -> StageFolder | None:
        """The folder that slides in a bucket are copied into; `None` if there is none."""
        return stage_folder(self.stage_dir, self.stage_gb)

    @property
    def tissue_files(self) -> TissueFiles:
        """Where each slide's tissue is read from and written to."""
        return TissueFiles(self.tissue_from, self.tissue_geojson, self.annotation_origin)

    def continuing(self, earlier: Self) -> Self:
        """The options of a call that continues a plan made with those of `earlier`: who reduces patches, the rules by
        which tissue is found and patches are dropped, and which of overlapping classes counts, are as there, for
        earlier versions had others, unless the call says them. Names of classes that are the same once clean are
        spelled as there.
        """
        kept: dict[str, Any] = {}
        if "resampling" not in self.model_fields_set:
            kept["resampling"] = earlier.resampling
        if not self.model_fields_set & {"skip_rule", "use_rule"}:
            kept |= {"skip_rule": earlier.skip_rule, "use_rule": earlier.use_rule}
        if "max_artefact" not in self.model_fields_set:
            kept["max_artefact"] = earlier.max_artefact
        for name in ("include", "exclude"):
            if ordered_classes(getattr(earlier, name)) == getattr(self, name):
                kept[name] = getattr(earlier, name)
        if sorted(map(parse_quota, earlier.class_quota)) == sorted(map(parse_quota, self.class_quota)):
            kept["class_quota"] = earlier.class_quota
        means_same = (self.class_overlap == "smaller") == (earlier.class_overlap == "smaller")  # "most" was never said
        if self.sample == earlier.sample and (means_same or "class_overlap" not in self.model_fields_set):
            kept["class_overlap"] = earlier.class_overlap
        return self.model_copy(update=kept)

    def absolute(self) -> Self:
        """As in `Config`; the files of `exclude_cases` as well, but not the names of lists that are here; and those of
        `sampler_encoder`.
        """
        encoder = self.sampler_encoder and absolute_model(self.sampler_encoder)
        lists = absolute_lists(self.exclude_cases)
        return super().absolute().model_copy(update={"exclude_cases": lists, "sampler_encoder": encoder})

    def for_plan(self, sampler: str | None = None) -> Self:
        """The configuration that a plan keeps: the same for the same plan, however it was made. `sampler` is what
        describes its candidates, by the hash of its weights: `sampler_encoder` then says that, and no path.
        """
        free = [name for name in type(self).model_fields if not self.says(name, "in_plan")]
        kept = {name: type(self).model_fields[name].default for name in free}
        return self.model_copy(update=kept | {"sampler_encoder": sampler})
