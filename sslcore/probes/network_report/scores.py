"""From readings to numbers: each probe once for every network, same-object probes of all networks in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sslcore.probes.attentive import attentive_probe
from sslcore.probes.discovery import centre_boxes, corloc, lost, tokencut
from sslcore.probes.geometry import alignment, rankme, uniformity
from sslcore.probes.knn import knn_eval
from sslcore.probes.linear import linear_probe, training_statistics
from sslcore.probes.masks import jaccard_of_maps
from sslcore.probes.network_report.images import SPLITS, ReportSets
from sslcore.probes.network_report.readings import Readings
from sslcore.probes.same_object.report import BindingReport, binding_report
from sslcore.validate import require

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the linear probe's penalty
NEIGHBOURS = {"photos": 5, "garments": 20}  # a photo has about four views in the smaller banks
# Numbers that stand beside those of the untrained network.
CONTROLLED = ("knn_photos", "linear_photos", "attentive_photos", "knn_garments", "linear_garments", "jaccard",
              "jaccard_mean", "lost", "tokencut", "binding", "rankme", "alignment", "uniformity")  # fmt: skip
Row = dict[str, float | int | str]


def pools(readings: Readings, name: str) -> list[str]:
    """Which pooled features there are: the class token, the mean of the patches, or both where they differ."""
    given = [kind for kind in ("cls", "mean") if f"{name}_train_{kind}" in readings.tensors]
    same = len(given) == 2 and torch.equal(*(readings.tensors[f"{name}_train_{kind}"] for kind in given))
    return given[:1] if same else given


def labelled(readings: Readings, sets: Mapping, name: str, kind: str) -> list[tuple[Tensor, Tensor]]:
    """(features, labels) of the three splits."""
    return [(readings.tensors[f"{name}_{split}_{kind}"].float(), sets[split].labels) for split in SPLITS]


def label_scores(splits: list[tuple[Tensor, Tensor]], name: str) -> Row:
    """kNN and linear accuracy of one kind of features."""
    train, val, test = splits
    count = min(NEIGHBOURS[name], len(train[0]))
    linear = linear_probe(train, val, test, l2=STRENGTHS)
    near = knn_eval(*train, *test, k=count)
    return {f"knn_{name}": near, f"linear_{name}": linear.accuracy}


def ridge_accuracy(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> float:
    """Val accuracy of least squares on the classes, best of three penalties: closed form, enough to choose by."""
    mean, std = training_statistics(train[0])
    rows, others = ((x - mean) / std for x in (train[0], val[0]))
    spread, directions = torch.linalg.eigh((rows.T @ rows / len(rows)).double())
    answer = torch.nn.functional.one_hot(train[1]).double()
    cross = directions.T @ (rows.double().T @ (answer - answer.mean(0)) / len(rows))
    best = 0.0
    for penalty in (1e-2, 1e-1, 1.0):
        weight = directions @ (cross / (spread.clamp_min(0) + penalty)[:, None])
        predicted = (others.double() @ weight + answer.mean(0)).argmax(1)
        best = max(best, float((predicted == val[1]).float().mean()))
    return best


def transfer_scores(readings: Readings, sets: ReportSets, seed: int = 0) -> Row:
    """Accuracies on photos and garments. Which pool is read is chosen by a ridge classifier on val, set by set."""
    row: Row = {}
    for name, given in (("photos", sets.photos), ("garments", sets.garments)):
        if not given or not pools(readings, name):
            continue
        splits = {kind: labelled(readings, given, name, kind) for kind in pools(readings, name)}
        best = max(splits, key=lambda kind: ridge_accuracy(*splits[kind][:2]) if len(splits) > 1 else 0)
        row |= label_scores(splits[best], name) | {f"pool_{name}": best}
    if "photos_train_tokens" in readings.tensors:
        splits = labelled(readings, sets.photos, "photos", "tokens")
        heads = 4 if splits[0][0].shape[2] % 4 == 0 else 1
        settings = {"num_heads": heads, "epochs": 20, "batch_size": 64, "lrs": (1e-3, 3e-3), "seed": seed}
        row["attentive_photos"] = attentive_probe(*splits, **settings).accuracy
    return row


def geometry_scores(readings: Readings, sets: ReportSets, kind: str) -> Row:
    """RankMe and uniformity of the photos' pooled training features; alignment of two views of one photo there."""
    features, labels = readings.tensors[f"photos_train_{kind}"], sets.photos["train"].labels
    pair = (labels[:-1] == labels[1:]).nonzero()[:, 0]  # sorted by photo: neighbours are views of one
    near = alignment(features[pair], features[pair + 1])
    return {"rankme": rankme(features), "alignment": near, "uniformity": uniformity(features)}


def true_boxes(scenes: object) -> Tensor:
    """Boxes of what is visible (N, K, 4); -1 where nothing of an object is."""
    boxes = scenes.extras["boxes"].float()
    return torch.where((boxes[..., 2:] > boxes[..., :2]).all(-1, keepdim=True), boxes, -1.0)


def object_scores(readings: Readings, sets: ReportSets) -> Row:
    """Attention and discovery on images with one object: Jaccard of the last block, CorLoc of LOST and TokenCut."""
    row: Row = {}
    single = sets.singles["test"]
    if "singles_attention" in readings.tensors:
        maps = readings.tensors["singles_attention"].float()
        row["jaccard"], row["jaccard_mean"] = jaccard_of_maps(maps, single.masks)
    if "singles_keys" in readings.tensors:
        keys, grid = readings.tensors["singles_keys"].float(), tuple(readings.facts["grid"])
        keys = keys - keys.mean((0, 1))  # keys share one long direction, which hides how they differ
        patch, boxes = sets.img_size / grid[0], true_boxes(single)
        row["lost"] = corloc(lost(keys, grid, max(1, keys.shape[1] // 9), patch).boxes, boxes)
        row["tokencut"] = corloc(tokencut(keys, grid, patch_size=patch).boxes, boxes)
    return row


def centre_score(sets: ReportSets) -> float:
    """CorLoc of one box in the middle of every image with one object, its size chosen on val."""
    boxes = {split: true_boxes(single) for split, single in sets.singles.items()}
    size = sets.img_size

    def score(split: str, share: float) -> float:
        return corloc(centre_boxes(len(boxes[split]), size, size, share), boxes[split])

    return score("test", max((0.3, 0.4, 0.5, 0.6, 0.7, 0.8), key=lambda share: score("val", share)))


def pixel_scores(sets: ReportSets) -> Row:
    """The control without a network: kNN and linear accuracy of the images themselves, 12 x 12 pixels, centred."""
    row: Row = {}
    for name, given in (("photos", sets.photos), ("garments", sets.garments)):
        if given:
            small = [torch.nn.functional.adaptive_avg_pool2d(given[s].images.float(), 12).flatten(1) for s in SPLITS]
            centre = small[0].mean(0)
            splits = [(x - centre, given[s].labels) for x, s in zip(small, SPLITS, strict=True)]
            row |= label_scores(splits, name)
    return row


def binding_scores(readings: Mapping[str, Readings], sets: ReportSets, seed: int = 0) -> dict[str, BindingReport]:
    """Same-object curves of several networks. All layers of all networks with equal grid and width are fitted in one
    run; each comes out as it would alone. Position, colour, pixels and shuffled answers are fitted once a run."""
    groups: dict[tuple, list[str]] = {}
    for name, reading in readings.items():
        if "scenes_train_layers" in reading.tensors:
            groups.setdefault(tuple(reading.tensors["scenes_train_layers"].shape[2:]), []).append(name)
    found: dict[str, BindingReport] = {}
    for names in groups.values():
        stacks = {s: torch.cat([readings[n].tensors[f"scenes_{s}_layers"] for n in names]) for s in SPLITS}
        try:
            together = binding_report(stacks, *(sets.scenes[s] for s in SPLITS), seed=seed)
        except ValueError as error:  # a grid too coarse for any pair; features were checked when they were read
            for name in names:
                readings[name].skipped["binding"] = str(error)
            continue
        scores, start = list(together.layers.values()), 0
        for name in names:
            layers = readings[name].facts["layers"]
            own = dict(zip(layers, scores[start : start + len(layers)], strict=True))
            start += len(layers)
            best = max(own, key=lambda layer, own=own: own[layer].val_auroc)
            facts = {key: together.facts[key] for key in ("match", "stratum", "test_images", "test_pairs", "prior")}
            found[name] = BindingReport(own, best, dict(together.controls), {}, facts)
    return found


def score_networks(
    readings: Mapping[str, Readings], sets: ReportSets, untrained: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[dict[str, Row], dict[str, BindingReport]]:
    """Every number of every network, and the binding curves.

    readings: name -> Readings of the same sets. untrained: name -> name of its untrained control among the readings.
    A number that does not apply is absent from the row; Readings.skipped says why. Raises ValueError for an
    unknown control.
    """
    untrained = dict(untrained or {})
    for name, control in untrained.items():
        require(name in readings and control in readings, f"untrained: {control!r} of {name!r} is not among readings")
    curves = binding_scores(readings, sets, seed)
    centre = centre_score(sets)
    rows: dict[str, Row] = {}
    for name, reading in readings.items():
        row = transfer_scores(reading, sets, seed)
        if "pool_photos" in row:
            row |= geometry_scores(reading, sets, row["pool_photos"])
        row |= object_scores(reading, sets)
        if "lost" in row:
            row["corloc_centre"] = centre
        if name in curves:
            row |= binding_row(curves[name])
        row |= {key: reading.facts[key] for key in ("params", "gflops", "ms", "img_size", "width")}
        rows[name] = row
    for name, control in untrained.items():
        for key in CONTROLLED:
            if key in rows[name] and key in rows[control]:
                rows[name][f"{key}_untrained"] = rows[control][key]
        if name in curves and control in curves:
            control_curve = curves[control]
            controls = {**curves[name].controls, "untrained": control_curve.best}
            curves[name] = replace(curves[name], controls=controls, untrained=control_curve.layers)
    return rows, curves


def binding_row(curve: BindingReport) -> Row:
    """The best layer (chosen on val) with its interval, and the controls."""
    best = curve.best
    row: Row = {"binding": best.auroc, "binding_low": best.low, "binding_high": best.high}
    row["binding_layer"] = curve.best_layer
    return row | {f"binding_{name}": score.auroc for name, score in curve.controls.items()}
