"""The plan: all slides, their patches, the order of rows and the split, decided in advance; read from and written to
HDF5.

Rows are the patches of all slides by slide id, each slide's in reading order (top to bottom, left to right), so that
stage one reads each slide once, front to back. The plan is one HDF5 file; a slide's group has the attributes that
readers of TRIDENT and CLAM coordinates expect. The plan's hash covers everything that decides the result, and nothing
else (paths, labels, file layout).
"""

import hashlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, PlanError
from pipeline.base.outside import parse_object, reading
from pipeline.base.units import magnification
from pipeline.config.groups import Grid
from pipeline.config.plan import PlanConfig
from pipeline.disk.files import sha256_json, write_bytes
from pipeline.disk.hdf5_input import attribute, attributes, dataset, member, open_hdf5, read_values
from pipeline.disk.objects.places import as_place, place_below
from pipeline.disk.tables import write_records
from pipeline.sampling import SPLIT_NAMES
from pipeline.slides.annotations.patch_classes import PatchClasses, checked_classes
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.identity import SlideIdentity, identity_from_record

FORMAT_VERSION = 1
MOST_REASONS = 10
"""Failed slides that an error lists. Our choice."""
EXCLUDED = "excluded"
"""Status of a slide that was left out on purpose, which is no failure."""
STATUSES = ("ok", "damaged", "failed", EXCLUDED)
"""What the audit says of slides."""
RECORD = "slide"
"""Attribute of a slide's group with all that is known of it; the others are for other readers."""
WANTED = "A plan is one HDF5 file; `g2l plan` makes one from a manifest"


@dataclass(frozen=True)
class SlidePlan:
    """The patches of one slide.

    Attributes:
        slide_id: the manifest's id.
        path: as in the manifest; relative paths start from `slides_root`.
        case_id, center: from the manifest.
        has_case: whether the manifest gave the case, else `case_id` is the slide's id; `None` in plans that do not say.
        manifest_mpp: um/px from the manifest, overriding the slide's.
        quickhash: OpenSlide's content hash, if the slide has one.
        size_l0_px: (width, height) of level 0.
        geometry: how its patches are read.
        coords_l0_px: int64 (N, 2), (x, y) of top left corners in level 0, in reading order.
        split: uint8 (N,), `sampling.TRAIN` or `VAL`.
        labels: other columns of the manifest.
        identity_facts: record of the slide's `SlideIdentity`, checked when the slide is read; `None` in plans of
            versions that kept none.
        classes: classes of the slide's annotations on its patches; `None` without annotations.
    """

    slide_id: str
    path: str
    case_id: str
    center: str | None
    manifest_mpp: float | None
    quickhash: str | None
    size_l0_px: tuple[int, int]
    geometry: PatchGeometry
    coords_l0_px: NDArray[np.int64]
    split: NDArray[np.uint8]
    labels: dict[str, str] = field(default_factory=dict)
    identity_facts: dict[str, Any] | None = None
    has_case: bool | None = None
    classes: PatchClasses | None = None

    @property
    def identity(self) -> SlideIdentity:
        """The slide's identity, as far as the plan records it."""
        return identity_from_record(self.identity_facts, self.quickhash, self.size_l0_px)

    def take(self, which: NDArray[Any]) -> "SlidePlan":
        """The slide with some of its patches only, by indices or by a mask."""
        classes = self.classes.take(which) if self.classes else None
        return replace(self, coords_l0_px=self.coords_l0_px[which], split=self.split[which], classes=classes)

    def content(self) -> dict[str, Any]:
        """The part of the plan's hash that covers this slide."""
        return self.facts_of_identity() | {
            "slide_id": self.slide_id,
            "case_id": self.case_id,
            "center": self.center,
            "manifest_mpp": self.manifest_mpp,
            "quickhash": self.quickhash,
            "size_l0_px": list(self.size_l0_px),
            "geometry": self.geometry.record(),
            "coords": hashlib.sha256(np.ascontiguousarray(self.coords_l0_px, "<i8").data).hexdigest(),
            "split": hashlib.sha256(np.ascontiguousarray(self.split).data).hexdigest(),
            **({"classes": classes.content()} if (classes := self.classes) else {}),
        }

    def facts_of_identity(self) -> dict[str, Any]:
        """The identity's record under its name; empty if there is none, as in earlier versions."""
        return {} if self.identity_facts is None else {"identity_facts": self.identity_facts}


ADDED_COLUMNS = (
    "classes_mm2",
    "annotations_sha256",
    "tissue_sha256",
    "dropped_mm2",
    "cluster_patches",
    "patches_covered",
    "covered_by",
)
"""Columns of the audit that are there only if a slide has something in them."""


@dataclass(frozen=True)
class AuditRow:
    """Results of `g2l plan` for one slide; a row of the audit table.

    `status` is ok, damaged (parts cannot be read), failed (`reason` says why; the slide has no rows), or `EXCLUDED`
    (by `--exclude-cases`; it was not read). Areas are in mm2. `mpp` is the value used; `own_mpp` and `manifest_mpp`
    are those of slide and manifest. `pixel_bytes` and `jpeg_bytes` are the mean sizes of `patches_measured` patches
    as lossless JPEG XL and as JPEG, to estimate the store's size; `plain_measured` of these are of one colour.
    `warnings` lists oddities of the slide. `row_hash` shows whether the slide's row of the manifest has changed.
    `classes_mm2` is JSON: the area of each class of the slide's annotations, within the slide. `annotations_sha256` and
    `tissue_sha256` are those of the files of annotations and of corrected tissue that were read. `dropped_mm2` is JSON:
    the area that each rule of the tissue finder dropped, by its name; empty if none ran. `cluster_patches` is JSON,
    with `--sample cluster`: by the number of each cluster, candidates and patches taken. `patches_covered` are those
    with enough tissue that are not available, for artefacts cover more of them than `--max-artefact` allows;
    `covered_by` is JSON: how many of them each rule covers most of, by its name.
    """

    slide_id: str
    status: str
    reason: str = ""
    path: str = ""
    case_id: str = ""
    center: str = ""
    split: str = ""
    vendor: str = ""
    width: int = 0
    height: int = 0
    levels: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    own_mpp: float | None = None
    manifest_mpp: float | None = None
    level_read: int | None = None
    tissue_mm2: float | None = None
    unreadable_mm2: float | None = None
    patches_available: int = 0
    patches_taken: int = 0
    pixel_bytes: int | None = None
    jpeg_bytes: int | None = None
    patches_measured: int = 0
    plain_measured: int = 0
    warnings: str = ""
    row_hash: str = ""
    classes_mm2: str = ""
    annotations_sha256: str = ""
    tissue_sha256: str = ""
    dropped_mm2: str = ""
    cluster_patches: str = ""
    patches_covered: int = 0
    covered_by: str = ""

    def record(self) -> dict[str, Any]:
        """All columns, without those that earlier versions lacked where there is nothing to say in them."""
        return {name: value for name, value in asdict(self).items() if value or name not in ADDED_COLUMNS}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The inverse of `record`. Columns of a later version are left out: they decide nothing.

        Raises:
            TypeError, ValueError: it is no row of an audit.
        """
        known = {column.name for column in fields(cls)}
        row = cls(**{name: value for name, value in dict(record).items() if name in known})
        row.dropped_areas()  # raises if it is none
        row.covering_rules()
        return row

    def dropped_areas(self) -> dict[str, float]:
        """The area that each rule dropped, mm2, by its name.

        Raises:
            ValueError: the record is not one.
        """
        areas = parse_object(self.dropped_mm2) if self.dropped_mm2 else {}
        return {name: float(area) for name, area in areas.items()}

    def covering_rules(self) -> dict[str, int]:
        """How many patches each rule covers most of, among those that artefacts cover too much of; by its name.

        Raises:
            ValueError: the record is not one.
        """
        counts = parse_object(self.covered_by) if self.covered_by else {}
        return {name: int(count) for name, count in counts.items()}

    def with_reason(self, words: str) -> "AuditRow":
        """This row with one more reason."""
        return replace(self, reason="; ".join(filter(None, (self.reason, words))))

    def with_warning(self, words: str) -> "AuditRow":
        """This row with one more warning."""
        return replace(self, warnings="; ".join(filter(None, (self.warnings, words))))


def split_column(split: NDArray[np.uint8]) -> str:
    """Names of the splits that codes (N,) have, as the audit gives them."""
    return "+".join(name for code, name in enumerate(SPLIT_NAMES) if (split == code).any())


@dataclass(frozen=True)
class PlannedSlides:
    """Slides whose patches are rows, in this order.

    Attributes:
        slides: slides with at least one row.
        slides_root: folder that relative paths start from.
    """

    slides: tuple[SlidePlan, ...]
    slides_root: Path

    @property
    def num_rows(self) -> int:
        """Number of patches, N."""
        return sum(len(s.split) for s in self.slides)

    def slide_of_row(self) -> NDArray[np.int32]:
        """Index into `slides` of every row; int32 (N,)."""
        return np.repeat(np.arange(len(self.slides), dtype=np.int32), [len(s.split) for s in self.slides])

    def case_of_row(self) -> NDArray[np.str_]:
        """The case of every row: (N,)."""
        return np.array([slide.case_id for slide in self.slides])[self.slide_of_row()]

    def cases_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.str_]:
        """The case of each of `rows` (M,): (M,). Of many rows `case_of_row` would take a name for each row of the
        plan.
        """
        ends = np.cumsum([len(slide.split) for slide in self.slides])
        of_row = np.searchsorted(ends, np.asarray(rows, np.int64), side="right")
        return np.array([slide.case_id for slide in self.slides])[of_row]

    def coords(self) -> NDArray[np.int64]:
        """Level-0 (x, y) of every row; int64 (N, 2)."""
        return np.concatenate([s.coords_l0_px for s in self.slides])

    def split(self) -> NDArray[np.uint8]:
        """Split code of every row; uint8 (N,)."""
        return np.concatenate([s.split for s in self.slides])

    def slide_path(self, slide: SlidePlan, slides_root: Path | None = None) -> Path:
        """Path of a slide's file; `slides_root` overrides the plan's. See `Manifest.slide_path`."""
        return place_below(slides_root or self.slides_root, slide.path)

    def places_beside(self, other: "PlannedSlides") -> dict[str, Any]:
        """Where the slides lie, as JSON types, for `at_places` of another plan of the same hash, which says nothing of
        places: the folder, and by their indices the paths that differ.
        """
        pairs = enumerate(zip(self.slides, other.slides, strict=True))
        paths = {str(index): own.path for index, (own, others) in pairs if own.path != others.path}
        return {"slides_root": str(self.slides_root), "paths": paths}

    def at_places(self, places: Mapping[str, Any]) -> Self:
        """These slides where `places_beside` says."""
        slides = list(self.slides)
        for index, path in places["paths"].items():
            slides[int(index)] = replace(slides[int(index)], path=path)
        return replace(self, slides=tuple(slides), slides_root=as_place(places["slides_root"]))

    def count(self, split: int) -> int:
        """Number of rows in a split."""
        return int(sum((s.split == split).sum() for s in self.slides))


@dataclass(frozen=True)
class Plan(PlannedSlides):
    """The whole plan: its slides in the order of their ids; see the module's docstring.

    Attributes:
        config: the options it was made with.
        audit: one row for each slide of the manifest that was read, in the order of their ids.
        budget: what its budget came to (`cohort.draws.budget`); `None` without one.
    """

    config: PlanConfig
    audit: tuple[AuditRow, ...]
    budget: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Plan({len(self.slides):,} slides, {self.num_rows:,} patches of {self.config.patch_px} px)"

    @property
    def mpp(self) -> float:
        """um/px of the patches; with `--tiling level0` the median over the slides, each of which has its own."""
        mpps = [slide.geometry.target_mpp for slide in self.slides]
        return float(np.median(mpps)) if self.config.tiling and mpps else self.config.mpp

    @property
    def resolution(self) -> str:
        """The resolution of the patches in words."""
        mpps = [slide.geometry.target_mpp for slide in self.slides]
        if not self.config.tiling or not mpps:
            return f"{self.config.mpp:g} um/px"
        least, most = f"{min(mpps):.4g}", f"{max(mpps):.4g}"
        return f"level 0 ({least if least == most else f'{least} to {most}'} um/px)"

    @property
    def hash(self) -> str:
        """Hex SHA-256 of everything that the plan decides."""
        return sha256_json(
            {"version": FORMAT_VERSION, "config": self.config.deciding(), "slides": [s.content() for s in self.slides]}
            | ({} if self.budget is None else {"budget": self.budget})
        )

    def as_known_to(self, earlier: "Plan") -> "Plan":
        """This plan with the identities from an earlier plan for slides that are the same. Equal plans then have equal
        hashes, although the earlier version kept no identities or a file has been repaired since.
        """
        known = {slide.slide_id: slide for slide in earlier.slides}
        slides = [
            replace(slide, identity_facts=before.identity_facts)
            if (before := known.get(slide.slide_id)) and not before.identity.changes(slide.identity)
            else slide
            for slide in self.slides
        ]
        return replace(self, slides=tuple(slides))


def in_order(
    slides: Sequence[SlidePlan], audit: Sequence[AuditRow]
) -> tuple[tuple[SlidePlan, ...], tuple[AuditRow, ...]]:
    """The slides that have patches, and the audit of all, in the order of their ids, as a plan has them.

    Raises:
        PlanError: no slide has a patch.
    """
    kept = sorted((s for s in slides if len(s.coords_l0_px)), key=lambda s: s.slide_id)
    if not kept:
        reasons = "\n".join(f"  {row.slide_id}: {row.reason}" for row in list(audit)[:MOST_REASONS])
        more = f"\n  and {len(audit) - MOST_REASONS:,} more" if len(audit) > MOST_REASONS else ""
        raise PlanError(f"no slide has a patch to sample:\n{reasons}{more}")
    return tuple(kept), tuple(sorted(audit, key=lambda row: row.slide_id))


def coords_attributes(slide: SlidePlan, grid: Grid) -> dict[str, Any]:
    """Attributes that readers of TRIDENT and CLAM coordinate files expect."""
    g = slide.geometry
    return {
        "patch_size": g.patch_px,
        "patch_size_level0": round(g.patch_l0_px),
        "level0_magnification": magnification(g.slide_mpp),
        "target_magnification": magnification(g.target_mpp),
        "overlap": grid.overlap_px,
        "name": slide.slide_id,
        "savetodir": "",
        "level0_width": slide.size_l0_px[0],
        "level0_height": slide.size_l0_px[1],
        "patch_level": g.level,
        "downsample": g.downsample,
    }


def plan_records(plan: Plan) -> dict[str, Any]:
    """The plan without its arrays, as JSON types."""
    return {
        "format": "g2l-plan",
        "version": FORMAT_VERSION,
        "hash": plan.hash,
        "config": plan.config.record(),
        "slides_root": str(plan.slides_root),
        "audit": [row.record() for row in plan.audit],
        **({} if plan.budget is None else {"budget": plan.budget}),
    }


def slide_record(slide: SlidePlan) -> dict[str, Any]:
    """One slide of the plan without its arrays, as JSON types."""
    return slide.facts_of_identity() | {
        "slide_id": slide.slide_id,
        "path": slide.path,
        "case_id": slide.case_id,
        "center": slide.center,
        "manifest_mpp": slide.manifest_mpp,
        "quickhash": slide.quickhash,
        "size_l0_px": list(slide.size_l0_px),
        "geometry": slide.geometry.record(),
        "labels": slide.labels,
        **({} if slide.has_case is None else {"has_case": slide.has_case}),
        **({"classes": list(classes.names)} if (classes := slide.classes) else {}),
    }


def slide_from_record(
    record: dict[str, Any],
    coords: NDArray[np.int64],
    split: NDArray[np.uint8],
    kind: type[SlidePlan] = SlidePlan,
    fractions: NDArray[np.float32] | None = None,
) -> SlidePlan:
    """The inverse of `slide_record`; the slide is of the class `kind`. `fractions` is (N, C), of its classes if it has
    any.

    Raises:
        KeyError, TypeError, ValueError: it is not a slide's record.
    """
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iu" or split.shape != coords.shape[:1]:
        raise ValueError(f"coords of shape {coords.shape}, split of shape {split.shape}")
    if not len(coords) or not set(np.unique(split).tolist()) <= set(range(len(SPLIT_NAMES))):
        raise ValueError("a slide without patches, or with an unknown split")
    geometry_names = [each.name for each in fields(PatchGeometry)]
    words = _of_later_version(record, [each.name for each in fields(SlidePlan)])
    if words := words or _of_later_version(record["geometry"], geometry_names):
        raise ValueError(words)
    width, height = record["size_l0_px"]
    identity_from_record(record.get("identity_facts"), record["quickhash"], (width, height))  # raises if it is wrong
    values = record | {"size_l0_px": (width, height), "geometry": PatchGeometry(**record["geometry"])}
    if "classes" in record:
        if fractions is None:
            raise ValueError("a slide with classes, and no fractions of them")
        values["classes"] = checked_classes(record["classes"], fractions, len(coords))
    return kind(coords_l0_px=coords, split=split, **values)


def _of_later_version(values: Mapping[str, Any], known: Collection[str]) -> str:
    """That a later version wrote a record, for it has names that are not among the `known` ones; "" if it has none.

    Raises:
        TypeError, ValueError: it is no record.
    """
    unknown = sorted(dict(values).keys() - set(known))
    return f"a later version of G2L made it: {unknown[0]:.80} is not known here" if unknown else ""


def _check_format(records: Any, source: Path) -> None:
    """Refuse records of another format or version.

    Raises:
        PlanError: they are.
    """
    format_version = (records.get("format"), records.get("version")) if isinstance(records, dict) else None
    if format_version != ("g2l-plan", FORMAT_VERSION):
        raise PlanError(f"{source}: not a plan of format version {FORMAT_VERSION}. Make it again with `g2l plan`")


def plan_from_records(records: dict[str, Any], slides: Sequence[SlidePlan], source: Path) -> Plan:
    """The inverse of `plan_records`.

    Raises:
        PlanError: another format or version, or the content does not match the recorded hash.
    """
    _check_format(records, source)
    with reading(source, "the plan is damaged", PlanError):
        if words := _of_later_version(records["config"], PlanConfig.model_fields):
            raise PlanError(f"{source}: {words}. Use that one, or plan again")
        try:
            config = PlanConfig.from_record(records["config"])
        except ConfigError as error:
            raise PlanError(f"{source}: the plan is damaged, or a later version of G2L made it ({error})") from None
        audit = tuple(map(AuditRow.from_record, records["audit"]))
        budget = dict(records["budget"]) if "budget" in records else None
        plan = Plan(tuple(slides), as_place(records["slides_root"]), config, audit, budget)
        sound = plan.hash == records["hash"]
    if not sound:
        raise PlanError(f"{source}: the plan is damaged: its content does not match its hash")
    return plan


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan as HDF5, complete or absent. The same plan gives the same bytes.

    Layout: `/slides/<id>/coords` int64 (N, 2) and `/slides/<id>/split` uint8 (N,), with attributes; the records as JSON
    attributes. Of a slide with annotations also `class_fractions` float32 (N, C), with its classes as an attribute.

    Raises:
        PlanError: it cannot be written; an existing `path` is kept.
    """
    buffer = io.BytesIO()  # HDF5 reads back what it writes, and its own errors hide the cause (a full disk)
    with h5py.File(buffer, "w", libver="v110", track_order=False) as f:
        f.attrs["plan"] = json.dumps(plan_records(plan) | {"audit": []}, sort_keys=True)
        audit = json.dumps([row.record() for row in plan.audit], sort_keys=True)
        f.create_dataset("audit", data=np.frombuffer(audit.encode(), np.uint8))  # may exceed an attribute's 64 kB
        for slide in plan.slides:
            group = f.create_group(f"slides/{slide.slide_id}")
            group.attrs[RECORD] = json.dumps(slide_record(slide), sort_keys=True)
            coords = group.create_dataset("coords", data=slide.coords_l0_px)
            group.create_dataset("split", data=slide.split)
            if slide.classes:
                fractions = group.create_dataset("class_fractions", data=slide.classes.fractions)
                fractions.attrs["classes"] = json.dumps(slide.classes.names)
            for name, value in coords_attributes(slide, plan.config.grid).items():
                coords.attrs[name] = value
                group.attrs[name] = value
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise PlanError(f"cannot write the plan {path}: {error.strerror}. Choose another --out") from error


def write_audit(rows: Sequence[AuditRow], path: Path) -> None:
    """Write the audit as CSV, one row a slide."""
    records = [row.record() for row in rows]
    used = {name for record in records for name in record}
    names = [f.name for f in fields(AuditRow) if f.name in used or f.name not in ADDED_COLUMNS]
    write_records(path, [asdict(row) for row in rows], names)


def read_plan(path: Path) -> Plan:
    """Read a plan and check it against its hash.

    Raises:
        PlanError: it is missing, not a plan, or damaged.
    """
    if not path.exists():
        raise PlanError(f"{path}: no such plan. `g2l plan` makes one")
    with reading(path, "not a readable plan", PlanError, WANTED), open_hdf5(path, only=RECORD) as f:
        file_attributes = attributes(f)
        if "plan" not in file_attributes:
            raise PlanError(f"{path}: an HDF5 file, but not a plan of G2L")
        records = json.loads(file_attributes["plan"])
        _check_format(records, path)
        records["audit"] = json.loads(_values(f, "audit").astype(np.uint8).tobytes())
        groups = member(f, "slides")
        slides = [
            slide_from_record(
                parse_object(attribute(group, RECORD)),
                _values(group, "coords"),
                _values(group, "split"),
                fractions=_values(group, "class_fractions") if "class_fractions" in group else None,
            )
            for group in (member(groups, name) for name in sorted(groups.keys()))
        ]
    return plan_from_records(records, slides, path)


def _values(group: h5py.Group, name: str) -> NDArray[Any]:
    """Read the numbers of a dataset.

    Raises:
        KeyError, UnsafeError: it is missing or cannot be read; see `hdf5_input.read_values`.
    """
    values = dataset(group, name)
    if values is None:
        raise KeyError(name)
    return read_values(values)
