"""Which rule for a linear probe's C, for kNN's votes and for the ridge of linear maps gives the best reported score.

Every rule sees the same folds, inner splits and fits; what is compared is the balanced accuracy on the outer test
parts, as a report has it, and how far it is from the best fixed C of that set (which no rule can know). Sets are
simulated, with few and many cases, and, with `--root`, real: a folder with `glas` and `osteosarcoma`, each with tables
of `path,label,group` and images. Real images are embedded by an EfficientNet-Lite2 with its ImageNet weights, by a
random network, and by statistics of colour and texture. No picture is kept. decisions/0033 and 0034 draw the
conclusions.

The last line is how much the chosen rule gains over the earlier one (log loss, classes by their frequency), which must
be above 0.
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from pipeline.base.console import table
from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.directions import grid_directions, nearest
from pipeline.evaluate.folds import Fold, Rows, group_folds
from pipeline.evaluate.probes.logistic import Floats, LogisticModel, balanced_weights, fit_logistic, second_moments
from pipeline.evaluate.probes.probe_choice import PATH_TOLERANCE, STRENGTHS, best_of, inner_splits, score_of
from pipeline.training.linear_map import fit_linear_map

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
FIXED_NEIGHBOURS = 20
ROWS_OF_A_CASE, WIDTH, BETWEEN_CASES = 16, 128, 0.5
CENTRE_PX = 224
Embeddings = NDArray[np.float32]
Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Set:
    """Embeddings (N, D) with the class and the case of each row, (N,)."""

    name: str
    embeddings: Embeddings
    labels: Names
    cases: Names


@dataclass(frozen=True, eq=False)
class Inner:
    """The rows that a fold's C is chosen by, with their split, and log probabilities at every strength (S, n, C)."""

    rows: Rows
    parts: Rows
    logs: Floats


def simulated(num_cases: int, num_classes: int, signal: float, seed: int) -> Set:
    """Cases that are mostly of one class, differ among each other, and have frequent and rare classes (1 / rank)."""
    rng = np.random.default_rng([seed, num_cases, num_classes, round(100 * signal)])
    shares = 1 / np.arange(1, num_classes + 1)
    case = np.repeat(np.arange(num_cases), ROWS_OF_A_CASE)
    first, second = (rng.choice(num_classes, num_cases, p=shares / shares.sum()) for _ in range(2))
    first[: 2 * num_classes] = np.tile(np.arange(num_classes), 2)[:num_cases]
    truth = np.where(rng.random(len(case)) < 0.7, first[case], second[case])
    hidden = rng.normal(size=(len(case), WIDTH)) + BETWEEN_CASES * rng.normal(size=(num_cases, WIDTH))[case]
    hidden += signal * rng.normal(size=(num_classes, WIDTH))[truth]
    mixed = (hidden * np.arange(1, WIDTH + 1) ** -0.75) @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    name = f"simulated: {num_cases} cases, {num_classes} classes, signal {signal}, seed {seed}"
    return Set(name, mixed.astype(np.float32), truth.astype(str), case.astype(str))


def simulated_sets(num_seeds: int) -> Iterator[Set]:
    """Few and many cases, few and many classes, weak and clear signals."""
    for num_cases, num_classes in ((12, 2), (44, 2), (44, 10), (150, 2)):
        for signal in (0.1, 0.3):
            for seed in range(num_seeds):
                yield simulated(num_cases, num_classes, signal, seed)


def colour_and_texture(pixels: NDArray[np.uint8]) -> Floats:
    """Moments and quantiles of colours and optical densities, and differences of brightness at four scales."""
    colours = pixels.reshape(-1, 3) / 255
    density = -np.log(np.clip(colours, 1 / 255, 1))
    found = []
    for values in (colours, density):
        found += [values.mean(0), values.std(0), np.quantile(values, (0.1, 0.5, 0.9), axis=0).ravel()]
    grey = pixels.mean(2) / 255
    for step in (1, 2, 4, 8):
        coarse = grey[::step, ::step]
        found.append(np.array([np.abs(np.diff(coarse, axis=0)).mean(), np.abs(np.diff(coarse, axis=1)).mean()]))
    return np.concatenate(found)


def embed_images(paths: list[Path]) -> dict[str, Embeddings]:
    """Embeddings of images by encoder."""
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    from pipeline.demo_data import TEACHER_MODEL, convert_teacher_weights

    torch.manual_seed(0)
    trained: Any = timm.create_model(TEACHER_MODEL)
    trained.load_state_dict(load_file(convert_teacher_weights()))
    trained.reset_classifier(0)
    networks: dict[str, Any] = {
        "lite2": trained.eval(),
        "random lcnet": timm.create_model("lcnet_050", num_classes=0).eval(),
    }
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    found: dict[str, list[Floats]] = {name: [] for name in (*networks, "colour")}
    for path in paths:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        top, left = ((size - CENTRE_PX) // 2 for size in pixels.shape[:2])
        centre = torch.from_numpy(pixels[top : top + CENTRE_PX, left : left + CENTRE_PX].copy()).permute(2, 0, 1)
        with torch.inference_mode():
            for name, network in networks.items():
                found[name].append(network(((centre / 255 - mean) / deviation)[None])[0].double().numpy())
        found["colour"].append(colour_and_texture(pixels))
    return {name: np.stack(rows).astype(np.float32) for name, rows in found.items()}


def real_sets(root: Path, cache: Path) -> Iterator[Set]:
    """Each table of the two sets by patient or slide (few cases), and GlaS by image as well (many)."""
    for folder, tables in (
        ("glas", ("patches_malignant", "patches_grade", "patches_area")),
        ("osteosarcoma", ("patches",)),
    ):
        images = sorted((root / folder / "images").iterdir())
        kept = cache / f"{folder}.npz"
        if not kept.exists():
            cache.mkdir(parents=True, exist_ok=True)
            arrays: dict[str, Any] = {"names": np.array([f"images/{path.name}" for path in images])}
            arrays |= embed_images(images)
            np.savez(kept, **arrays)
        with np.load(kept) as held:
            place = {name: row for row, name in enumerate(held["names"].tolist())}
            embedded = {name: held[name] for name in held.files if name != "names"}
        for name in tables:
            with (root / folder / f"{name}.csv").open() as file:
                rows = list(csv.DictReader(file))
            labels = np.array([row["label"] for row in rows])
            groups = {"patient or slide": np.array([row["group"] for row in rows])}
            if folder == "glas":
                groups["image"] = np.array([row["path"].rsplit("_r", 1)[0] for row in rows])
            for by, cases in groups.items():
                for encoder, values in embedded.items():
                    title = f"{folder} {name.removeprefix('patches_')} by {by}, {encoder}"
                    yield Set(title, values[[place[row["path"]] for row in rows]], labels, cases)


def outer_folds(labels: Names, cases: Names) -> list[Fold]:
    """Five folds, or as many as the cases allow.

    Raises:
        BenchmarkError: not even two.
    """
    for count in (5, 4, 3):
        try:
            return group_folds(labels, cases, count, 0)
        except BenchmarkError:
            continue
    return group_folds(labels, cases, 2, 0)


def path_of(features: Embeddings, truth: Rows, fold: Fold, *, balanced: bool) -> Floats:
    """Log probabilities (S, n, C) of a fold's test rows at every strength."""
    train, own, num_classes = features[fold.train], truth[fold.train], int(truth.max()) + 1
    weights = balanced_weights(own) if balanced else np.ones(len(own))
    moments = second_moments(train, weights)
    model: LogisticModel | None = None
    found = []
    for strength in STRENGTHS:
        model = fit_logistic(train, own, num_classes, strength, moments, model, PATH_TOLERANCE, weights)
        found.append(model.log_probabilities(features[fold.test]))
    return np.stack(found)


def one_standard_error(truth: Rows, groups: Rows, inner: Inner) -> int:
    """The strongest penalty whose balanced accuracy is within a standard error, over cases, of the best one's; the
    error is of the difference.
    """
    own, case = truth[inner.rows], groups[inner.rows]
    classes = np.unique(own)
    right = (inner.logs.argmax(2) == own).astype(np.float64)
    shares = np.array([1 / np.sum(own == c) / len(classes) for c in range(int(truth.max()) + 1) if (own == c).any()])
    recall = np.stack([right[:, own == c].mean(1) for c in classes], axis=1)
    place = np.searchsorted(classes, own)
    influence = (right - recall[:, place]) * shares[place]
    sums = np.stack([influence[:, case == name].sum(1) for name in np.unique(case)], axis=1)
    scores = recall.mean(1)
    best = best_of(scores)
    errors = np.sqrt(np.square(sums[best] - sums).sum(1) * sums.shape[1] / max(sums.shape[1] - 1, 1))
    return int(np.flatnonzero(scores >= scores[best] - errors - 1e-12)[0])


def by_score(name: str) -> Callable[[Rows, Rows, Inner], int]:
    """The strength of the best score on the inner splits."""

    def choose(truth: Rows, _: Rows, inner: Inner) -> int:
        own = truth[inner.rows]
        return best_of(np.array([score_of(name, own, logs, inner.parts) for logs in inner.logs]))  # type: ignore[arg-type]

    return choose


RULES: dict[str, tuple[bool, Callable[[Rows, Rows, Inner], int]]] = {
    "earlier: log loss, by frequency": (False, by_score("log_loss")),
    "balanced accuracy, by frequency": (False, by_score("balanced_accuracy")),
    "log loss, balanced": (True, by_score("log_loss")),
    "one standard error, balanced": (True, one_standard_error),
    "chosen: balanced accuracy, balanced": (True, by_score("balanced_accuracy")),
} | {f"fixed C = {c:g}, balanced": (True, lambda *_, i=i: i) for i, c in enumerate(STRENGTHS)}
EARLIER, CHOSEN = "earlier: log loss, by frequency", "chosen: balanced accuracy, balanced"


def probe_by_rules(one: Set) -> dict[str, float]:
    """Balanced accuracy of the linear probe under every rule."""
    truth, groups = (np.unique(names, return_inverse=True)[1] for names in (one.labels, one.cases))
    predicted = {name: np.full(len(truth), -1) for name in RULES}
    for fold in outer_folds(one.labels, one.cases):
        features = np.asarray(StandardScaler().fit(one.embeddings[fold.train]).transform(one.embeddings), np.float32)
        if len(fold.train) < features.shape[1]:  # the fits are the same in the span of the rows
            features = features @ np.linalg.svd(features[fold.train], full_matrices=False)[2].T
        splits = inner_splits(one.labels, one.cases, fold, 0)
        for balanced in (False, True):
            outer = path_of(features, truth, fold, balanced=balanced)
            inner = None
            if splits:
                logs = np.concatenate([path_of(features, truth, split, balanced=balanced) for split in splits], axis=1)
                rows = np.concatenate([split.test for split in splits])
                inner = Inner(rows, np.repeat(np.arange(len(splits)), [len(s.test) for s in splits]), logs)
            for name, (wanted, choose) in RULES.items():
                if wanted == balanced:
                    place = choose(truth, groups, inner) if inner is not None else STRENGTHS.index(1e-2)
                    predicted[name][fold.test] = outer[place].argmax(1)
    return {name: balanced_accuracy_score(truth, found) for name, found in predicted.items()}


def knn_by_rules(one: Set) -> dict[str, float]:
    """Balanced accuracy of kNN with plain votes and with votes that classes share alike, k fixed or chosen."""
    truth = np.unique(one.labels, return_inverse=True)[1]
    num_classes = int(truth.max()) + 1
    directions = grid_directions(one.embeddings)
    cosines = directions @ directions.T
    counts = [(k, balanced) for balanced in (False, True) for k in NEIGHBOURS]

    def votes(fold: Fold) -> dict[tuple[int, bool], Rows]:
        near = truth[fold.train][nearest(cosines[np.ix_(fold.test, fold.train)], min(max(NEIGHBOURS), len(fold.train)))]
        weights = np.zeros(num_classes)
        weights[truth[fold.train]] = balanced_weights(truth[fold.train])
        shares = [(k, b, (near[:, :k, None] == np.arange(num_classes)).sum(1)) for k, b in counts]
        return {(k, b): (share * weights if b else share).argmax(1) for k, b, share in shares}

    names = {False: "plain votes", True: "balanced votes"}
    predicted = {f"{names[b]}, k = {k}": np.full(len(truth), -1) for k, b in counts}
    predicted |= {f"{name}, k chosen": np.full(len(truth), -1) for name in names.values()}
    for fold in outer_folds(one.labels, one.cases):
        outer = votes(fold)
        splits = inner_splits(one.labels, one.cases, fold, 0)
        inner = [votes(split) for split in splits]
        own = np.concatenate([truth[split.test] for split in splits]) if splits else np.zeros(0)
        for balanced, name in names.items():
            for k in NEIGHBOURS:
                predicted[f"{name}, k = {k}"][fold.test] = outer[k, balanced]
            scores = (
                [balanced_accuracy_score(own, np.concatenate([v[k, balanced] for v in inner])) for k in NEIGHBOURS]
                if splits
                else []
            )
            k = NEIGHBOURS[best_of(np.array(scores))] if splits else FIXED_NEIGHBOURS
            predicted[f"{name}, k chosen"][fold.test] = outer[k, balanced]
    return {name: balanced_accuracy_score(truth, found) for name, found in predicted.items()}


def ridge_by_rules(num_cases: int, seed: int) -> dict[str, float]:
    """Explained variance on 100 new cases of maps whose ridge is chosen by leaving out cases, and rows."""
    rng = np.random.default_rng([seed, num_cases])
    case = np.repeat(np.arange(num_cases + 100), ROWS_OF_A_CASE)
    student, teacher = (rng.normal(size=(num_cases + 100, WIDTH))[case] for _ in range(2))
    shared = rng.normal(size=(len(case), WIDTH))
    x = (student + shared + 0.5 * rng.normal(size=shared.shape)).astype(np.float32)
    y = teacher + shared
    known = case < num_cases
    total = np.square(y[~known] - y[known].mean(0)).sum()

    def explained(names: Names) -> float:
        made = fit_linear_map(x[known], y[known], names).predict(x[~known])
        return float(1 - np.square(made - y[~known]).sum() / total)

    return {"cases left out": explained(case[known].astype(str)), "rows left out": explained(np.full(known.sum(), ""))}


def summarise(found: list[dict[str, float]], reference: list[float] | None = None) -> list[tuple[str, ...]]:
    """A line a rule: its mean over the sets, and how far it is from the reference, in the mean and at worst."""
    lines = []
    for name in found[0]:
        values = np.array([one[name] for one in found])
        below = np.array(values if reference is None else reference) - values
        less = [] if reference is None else [f"{below.mean():.3f}", f"{below.max():.3f}"]
        lines.append((name, f"{values.mean():.3f}", *less))
    return lines


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the real sets; without it, simulated ones only")
    parser.add_argument("--cache", type=Path, default=Path("probe_choice_cache"), help="folder of real embeddings")
    parser.add_argument("--seeds", type=int, default=2, help="simulated sets of each kind")
    args = parser.parse_args()

    kinds = {"simulated": simulated_sets(args.seeds)}
    if args.root:
        kinds["real"] = real_sets(args.root, args.cache)
    gains = []
    for kind, sets in kinds.items():
        probes, neighbours = [], []
        for one in sets:
            probes.append(probe_by_rules(one))
            neighbours.append(knn_by_rules(one))
            print(f"{one.name}: {probes[-1][EARLIER]:.3f} -> {probes[-1][CHOSEN]:.3f}", flush=True)
        best = [max(value for name, value in found.items() if name.startswith("fixed")) for found in probes]
        gains.append(float(np.mean([found[CHOSEN] - found[EARLIER] for found in probes])))
        head = ("balanced accuracy", f"mean of {len(probes)} sets", "below the best fixed C", "at worst")
        print(f"\n{kind}, linear probe\n{table(summarise(probes, best), head, right=(1, 2, 3))}")
        print(f"\n{kind}, kNN\n{table(summarise(neighbours), head[:2], right=(1,))}\n")
    for num_cases in (8, 40, 160):
        maps = [ridge_by_rules(num_cases, seed) for seed in range(args.seeds)]
        lines = summarise(maps)
        print(f"linear map, {num_cases} cases: " + "; ".join(f"{name} {value}" for name, value in lines))
    print(f"gain over the earlier rule: {', '.join(f'{gain:+.3f}' for gain in gains)} (needs > 0)")
    return 0 if min(gains) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
