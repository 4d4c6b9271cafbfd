"""report(): one network, every probe that fits it, printed and drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sslcore.probes.network_report.images import ReportSets, Sizes, report_sets
from sslcore.probes.network_report.network import as_backbone, image_size, name_of
from sslcore.probes.network_report.readings import read_network
from sslcore.probes.network_report.scores import Row, pixel_scores, score_networks
from sslcore.probes.same_object.report import BindingReport
from sslcore.probes.untrained import untrained_copy
from sslcore.validate import require

# What a line says; its number; the control without a network, and that control's name.
LINES = (
    ("kNN, unseen photos", "knn_photos", "knn_photos_pixels", "pixels"),
    ("linear, unseen photos", "linear_photos", "linear_photos_pixels", "pixels"),
    ("attentive, unseen photos", "attentive_photos", None, ""),
    ("kNN, garments", "knn_garments", "knn_garments_pixels", "pixels"),
    ("linear, garments", "linear_garments", "linear_garments_pixels", "pixels"),
    ("attention Jaccard, best head", "jaccard", None, ""),
    ("attention Jaccard, mean head", "jaccard_mean", None, ""),
    ("LOST CorLoc", "lost", "corloc_centre", "middle box"),
    ("TokenCut CorLoc", "tokencut", "corloc_centre", "middle box"),
    ("binding AUROC, best layer", "binding", "binding_position", "position"),
)
SHAPES = (("RankMe", "rankme"), ("alignment of two views", "alignment"), ("uniformity", "uniformity"))


@dataclass(frozen=True)
class NetworkReport:
    """The card of one network. scores: every number under its short name; binding: the curve over layers, or None;
    skipped: probe -> why it does not apply; facts: what was measured on what, seconds."""

    name: str
    scores: dict[str, float | int | str]
    binding: BindingReport | None
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        binding = None if self.binding is None else self.binding.as_dict()
        return {"name": self.name, "scores": self.scores, "binding": binding, "skipped": self.skipped,
                "facts": self.facts}  # fmt: skip

    def table(self) -> str:
        """Aligned text: each number beside its controls, binding by layer, and what was left out."""
        lines = [f"{self.name}: {self.facts['cost']}", f"{'probe':<30} value   untrained  no network"]
        for title, key, other, other_name in (*LINES, *((*line, None, "") for line in SHAPES)):
            if key in self.scores:
                fresh = self.scores.get(f"{key}_untrained")
                control = "-" if fresh is None else f"{fresh:.3f}"
                second = f"{self.scores[other]:.3f} ({other_name})" if other in self.scores else "-"
                lines.append(f"{title:<30} {self.scores[key]:<6.3f}  {control:<9}  {second}")
        if self.binding is not None:
            lines += [self._layer(layer) for layer in self.binding.layers]
        lines += [f"left out: {probe}: {reason}" for probe, reason in self.skipped.items()]
        lines.append(f"measured on {self.facts['images']} in {self.facts['seconds']:.0f} s")
        return "\n".join(lines)

    def _layer(self, layer: int | str) -> str:
        score, fresh = self.binding.layers[layer], self.binding.untrained.get(layer)
        title = f"  binding at layer {layer}{' *' if layer == self.binding.best_layer else ''}"
        control = "-" if fresh is None else f"{fresh.auroc:.3f}"
        return f"{title:<30} {score.auroc:<6.3f}  {control:<9}  [{score.low:.3f}, {score.high:.3f}]"

    def __repr__(self) -> str:
        return self.table()

    def plot(self) -> object:
        """Left: each probe between its controls. Right: binding over layers. Returns the figure."""
        import matplotlib.pyplot as plt

        wide = self.binding is not None
        figure, axes = plt.subplots(
            1, 1 + wide, figsize=(7.2 if wide else 4.6, 3.2), squeeze=False, width_ratios=[1.25, 1][: 1 + wide]
        )
        left = axes[0, 0]
        shown = [line for line in LINES if line[1] in self.scores]
        bar = {"markersize": 11, "markeredgewidth": 2, "label": "no network"}
        for place, (_, key, other, _) in enumerate(reversed(shown)):
            if other in self.scores:
                left.plot(self.scores[other], place, "|", color="C2", **bar)
            if f"{key}_untrained" in self.scores:
                fresh = self.scores[f"{key}_untrained"]
                left.plot(fresh, place, "o", color="C1", fillstyle="none", label="untrained")
            left.plot(self.scores[key], place, "o", color="C0", label=self.name)
        left.set_yticks(range(len(shown)), [line[0] for line in reversed(shown)], fontsize=8)
        left.set(xlim=(-0.02, 1.02), xlabel="accuracy, Jaccard, CorLoc or AUROC", ylim=(-0.6, len(shown) - 0.4))
        left.grid(axis="x")
        handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles, loc="outside upper left", ncols=3, fontsize=8)
        if wide:
            draw_curve(axes[0, 1], self.binding)
        return figure


def draw_curve(ax: object, binding: BindingReport) -> None:
    """Binding over layers, trained and untrained, with intervals, and the controls that need no network."""
    for curve, colour, fill, name in ((binding.layers, "C0", "full", "trained"),
                                      (binding.untrained, "C1", "none", "untrained")):  # fmt: skip
        if curve:
            places = range(len(curve))
            scores = list(curve.values())
            ax.plot(places, [score.auroc for score in scores], "o-", color=colour, fillstyle=fill, label=name)
            ax.fill_between(places, [s.low for s in scores], [s.high for s in scores], color=colour, alpha=0.2, lw=0)
    for name, style in (("position", ":"), ("colour", "-."), ("pixels", "--")):
        if name in binding.controls:
            ax.axhline(binding.controls[name].auroc, linestyle=style, color="C2", linewidth=1.2, label=name)
    ax.set_xticks(range(len(binding.layers)), [str(layer) for layer in binding.layers])
    ax.set(xlabel="layer (0 = embedding)", ylabel="same-object AUROC")
    ax.legend(fontsize=7, ncols=2)


def report(
    model: nn.Module | str,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    *,
    img_size: int | None = None,
    sizes: Sizes | str | None = None,
    sets: ReportSets | None = None,
    untrained: nn.Module | bool = True,
    name: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    quiet: bool = False,
) -> NetworkReport:
    """Measure one network with every probe that fits it; prints the card and draws it unless `quiet`.

    model: a course backbone, a timm model, any module that returns (B, D) vectors, (B, N, D) tokens or (B, C, H, W)
      maps, or a name: "timm/<name>" with its pretrained weights. A checkpoint by its name: sslcore.bench.named_report.
    preprocess: uint8 (B, 3, H, W) -> what the model reads; default: the model's own, else the course's normalisation.
    img_size: default: what the network was made for. sizes, sets: which images, see report_sets.
    untrained: True reads a copy with fresh weights as the control, a module is used as it is, False leaves it out.
    Probes that do not apply are left out with a line that says why. Raises ValueError for outputs of an unknown shape,
    features that are not finite, a network without weights to reset (pass untrained=False), or an unknown size.
    """
    begin = time.perf_counter()
    backbone = as_backbone(model, img_size, preprocess)
    size = image_size(backbone if img_size is None else model, img_size)
    sets = report_sets(size, sizes) if sets is None else sets
    require(sets.img_size == size, f"sets: expected images of {size} px, got {sets.img_size}")
    readings = {"network": read_network(backbone, sets, preprocess, batch_size)}
    controls = {}
    if untrained is not False:
        given = isinstance(untrained, nn.Module)
        fresh = as_backbone(untrained, size, preprocess) if given else untrained_copy(backbone, seed)
        readings["untrained"] = read_network(fresh, sets, preprocess, batch_size)
        controls = {"network": "untrained"}
    rows, curves = score_networks(readings, sets, controls, seed)
    row: Row = rows["network"]
    row |= {f"{key}_pixels": value for key, value in pixel_scores(sets).items()}
    facts = dict(readings["network"].facts)
    count = sets.sizes
    cost = f"{facts['params'] / 1e6:.2f} M weights, {facts['gflops']:.2f} GFLOPs and {facts['ms']:.1f} ms an image"
    facts["cost"] = f"{cost} of {size} px ({facts['timed_on']})"
    others = f"{count.singles} single objects, {sum(count.scenes)} scenes with twins"
    facts["images"] = f"{count.photos} photos, {sum(count.garments)} garments, {others}"
    facts["seconds"] = round(time.perf_counter() - begin, 2)
    title = name or (model if isinstance(model, str) else name_of(backbone))
    card = NetworkReport(title, row, curves.get("network"), readings["network"].skipped, facts)
    if not quiet:
        print(card.table())
        card.plot()
    return card
