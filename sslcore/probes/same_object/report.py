"""The course's common read-out: same-object AUROC for every layer, beside its controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from sslcore.probes.frozen import extract
from sslcore.probes.same_object.controls import colour_features, colour_gaps, pixel_features, position_features
from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.metrics import auroc, image_auroc, pair_accuracy
from sslcore.probes.same_object.pairs import Pairs, sample_pairs
from sslcore.probes.untrained import untrained_copy
from sslcore.validate import check_rank, require

SPLITS = ("train", "val", "test")
SHUFFLES = 3  # fits to shuffled answers


@dataclass(frozen=True)
class Score:
    """AUROC on the test pairs, its 95 % interval over images, and the AUROC on the validation pairs."""

    auroc: float
    low: float
    high: float
    val_auroc: float


@dataclass(frozen=True)
class BindingReport:
    """Same-object AUROC by layer and for the controls, all on the same test pairs.

    layers: index -> Score. best_layer: chosen on val. controls: name -> Score; "shuffled" gives
    mean, lowest and highest of a few fits to shuffled answers, "untrained" is the best layer (on
    val) of the untrained network, whose whole curve is `untrained`. facts: match, stratum, numbers of images and
    pairs, prior, majority, accuracy and balanced accuracy of the best layer, seconds.
    """

    layers: dict[int, Score]
    best_layer: int
    controls: dict[str, Score]
    untrained: dict[int, Score]
    facts: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def best(self) -> Score:
        """Test score of the layer that val chose."""
        return self.layers[self.best_layer]

    def as_dict(self) -> dict:
        """Plain numbers and strings, ready for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Aligned text: one row a layer, then the controls."""
        rows = [(f"layer {index}{' *' if index == self.best_layer else ''}", s) for index, s in self.layers.items()]
        rows += list(self.controls.items())
        lines = [f"{'features':<14} AUROC   95 % interval    val"]
        lines += [f"{name:<14} {s.auroc:.3f}   {s.low:.3f} to {s.high:.3f}   {s.val_auroc:.3f}" for name, s in rows]
        lines.append("  ".join(f"{name} {value}" for name, value in self.facts.items()))
        return "\n".join(lines)

    def plot(self, ax: object = None) -> object:
        """Draw the layer curve with its interval, the untrained curve and the controls; returns the axes."""
        import matplotlib.pyplot as plt

        ax = plt.gca() if ax is None else ax
        for label, curve in (("trained", self.layers), ("untrained", self.untrained)):
            if curve:
                scores = list(curve.values())
                ax.plot(list(curve), [s.auroc for s in scores], marker="o", label=label)
                ax.fill_between(list(curve), [s.low for s in scores], [s.high for s in scores], alpha=0.2)
        for name, style in (("position", ":"), ("colour", "-."), ("pixels", "--"), ("colour gap", (0, (5, 1)))):
            if name in self.controls:
                ax.axhline(self.controls[name].auroc, linestyle=style, color="grey", label=name)
        ax.axhline(0.5, color="grey", linewidth=0.8)
        ax.set(xlabel="layer (0 = embedding)", ylabel="same-object AUROC")
        ax.legend()
        return ax


def scene_pairs(scenes: object, patch_size: int, grid: tuple[int, int], seed: int, **sampling: object) -> Pairs:
    """Pairs of a split of scenes (needs masks, and extras["twin_of"] for the same-class stratum)."""
    require(getattr(scenes, "masks", None) is not None, "scenes: expected instance masks (N, H, W), got none")
    labels, purity = token_labels(scenes.masks, patch_size)
    generator = torch.Generator().manual_seed(seed)
    return sample_pairs(labels, purity, grid, scenes.extras.get("twin_of"), generator=generator, **sampling)


def score_layers(fitted: FittedProbe, features: Tensor, pairs: Pairs) -> tuple[list[Score], Tensor]:
    """Test Score of each of the S probes, and their logits (S, P)."""
    logits = fitted.score(features, pairs)
    scores = []
    for row, val_auroc in zip(logits, fitted.val_auroc.tolist(), strict=True):
        value, (low, high) = image_auroc(row, pairs.same, pairs.image)
        scores.append(Score(value, low, high, val_auroc))
    return scores, logits


def stacked(features: Tensor) -> Tensor:
    """Add the layer axis to (N, T, D) features; (L, N, T, D) pass."""
    if features.ndim == 3:
        return features[None]
    check_rank("features", features, 4)
    return features


def best_index(scores: Sequence[Score]) -> int:
    """Position of the highest validation AUROC."""
    return max(range(len(scores)), key=lambda index: scores[index].val_auroc)


def shuffled_score(run: Callable, features: Mapping[str, Tensor], pairs: Mapping[str, Pairs], seed: int) -> Score:
    """Mean, lowest and highest AUROC over fits to shuffled answers: a single such fit may land far from 0.5, because a
    random quadratic form on tokens that do carry the answer agrees or disagrees with it by luck."""
    fits = []
    for number in range(seed, seed + SHUFFLES):
        # Val is shuffled too: the true answers there would pick the epoch that happens to be right.
        fits.append(run(features, {s: pairs[s].shuffled(number) for s in ("train", "val")})[0][0])
    values = [fit.auroc for fit in fits]
    return Score(sum(values) / SHUFFLES, min(values), max(values), sum(fit.val_auroc for fit in fits) / SHUFFLES)


def gap_score(val: Tensor, test: Tensor, patch_size: int, pairs: Mapping[str, Pairs]) -> Score:
    """What "unlike colours mean same object" is worth on these pairs, without network and without fit."""
    gaps = {s: colour_gaps(images, patch_size, pairs[s]) for s, images in (("val", val), ("test", test))}
    value, (low, high) = image_auroc(gaps["test"], pairs["test"].same, pairs["test"].image)
    return Score(value, low, high, auroc(gaps["val"], pairs["val"].same))


def binding_report(
    backbone: nn.Module | Mapping[str, Tensor],
    train_scenes: object,
    val_scenes: object,
    test_scenes: object,
    layers: Sequence[int] | str = "all",
    *,
    match: str = "position",
    stratum: str = "same_class",
    min_purity: float = 0.6,
    max_pairs: int | None = None,
    controls: bool = True,
    untrained: nn.Module | bool = True,
    seed: int = 0,
    batch_size: int = 64,
    **fit: object,
) -> BindingReport:
    """Does a frozen network know which tokens belong to one object? AUROC by layer, with controls.

    backbone: a network with the Tokens interface, or {"train", "val", "test"} -> patch tokens (N, T, D) or
        (L, N, T, D) in raster order. scenes: images (N, C, H, W), masks (N, H, W), extras["twin_of"] (N, K).
    layers: "all" or indices; ignored for given features. match, stratum, min_purity, max_pairs: see sample_pairs.
    controls: position, colour, pixels, colour gap (see controls.colour_gaps), shuffled labels. untrained: True copies
        the network with fresh weights, a module is used as it is, False (or given features) leaves that control out.
    fit: see same_object_probe.
    All layers are trained side by side on train pairs, epoch and best layer are chosen on val, and every number is
    read on test. The majority answer has AUROC 0.5. Raises ValueError without masks, twins or enough pairs.
    Source: Li et al. 2025 (arXiv 2510.24709), with displacement matching and twins added by this course.
    """
    begin = time.perf_counter()
    scenes = dict(zip(SPLITS, (train_scenes, val_scenes, test_scenes), strict=True))
    network = isinstance(backbone, nn.Module)
    if network:
        features = {s: extract(backbone, scenes[s].images, "tokens", batch_size, layers) for s in SPLITS}
    else:
        missing = [s for s in SPLITS if s not in backbone]
        require(not missing, f"features: expected keys {list(SPLITS)}, missing {missing}")
        features = {s: stacked(backbone[s]) for s in SPLITS}
    device = features["train"].device
    height, width = train_scenes.images.shape[-2:]
    grid = token_grid(height, width, features["train"].shape[2])
    patch_size = height // grid[0]
    sampling = {"match": match, "stratum": stratum, "min_purity": min_purity, "max_pairs": max_pairs}
    pairs = {s: scene_pairs(scenes[s], patch_size, grid, seed, **sampling).to(device) for s in SPLITS}

    def run(inputs: Mapping[str, Tensor], answers: Mapping[str, Pairs] = pairs) -> tuple[list[Score], Tensor]:
        given = {s: stacked(inputs[s]).to(device) for s in SPLITS}
        train, val = ((given[s], answers[s]) for s in ("train", "val"))
        fitted = same_object_probe(train, val, seed=seed, **fit)
        return score_layers(fitted, given["test"], pairs["test"])

    scores, logits = run(features)
    best = best_index(scores)
    numbers = list(range(len(scores))) if layers == "all" or not network else list(layers)
    found: dict[str, Score] = {}
    if controls:
        images = [scenes[s].images for s in SPLITS]
        pixels = pixel_features(images[0], images[1:], patch_size)
        places = [position_features(len(part), grid) for part in images]
        colours = [colour_features(part, patch_size) for part in images]
        for name, parts in (("position", places), ("colour", colours), ("pixels", pixels)):
            found[name] = run(dict(zip(SPLITS, parts, strict=True)))[0][0]
        found["colour gap"] = gap_score(val_scenes.images, test_scenes.images, patch_size, pairs)
        found["shuffled"] = shuffled_score(run, {s: features[s][best] for s in SPLITS}, pairs, seed)
    untrained_scores: dict[int, Score] = {}
    if network and untrained is not False:
        fresh = untrained_copy(backbone, seed) if untrained is True else untrained
        plain = {s: extract(fresh, scenes[s].images, "tokens", batch_size, layers) for s in SPLITS}
        rows = run(plain)[0]
        untrained_scores = dict(zip(numbers, rows, strict=True))
        found["untrained"] = rows[best_index(rows)]
    facts = {"match": match, "stratum": stratum, "test_images": len(test_scenes.images)}
    facts |= {"train_pairs": len(pairs["train"]), "test_pairs": len(pairs["test"])}
    facts["prior"] = round(pairs["test"].prior, 4)
    facts |= {name: round(value, 4) for name, value in pair_accuracy(logits[best], pairs["test"].same).items()}
    facts["seconds"] = round(time.perf_counter() - begin, 2)
    return BindingReport(dict(zip(numbers, scores, strict=True)), numbers[best], found, untrained_scores, facts)


def binding_auroc(
    backbone: nn.Module | Mapping[str, Tensor],
    train_scenes: object,
    val_scenes: object,
    test_scenes: object,
    layers: Sequence[int] | str = "all",
    **arguments: object,
) -> float:
    """Test AUROC of the layer that val chose, in [0, 1]: binding_report without controls, as one number."""
    options = {"controls": False, "untrained": False} | arguments
    return binding_report(backbone, train_scenes, val_scenes, test_scenes, layers, **options).best.auroc
