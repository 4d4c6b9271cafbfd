"""A controlled comparison: arms x seeds -> per-seed values, an interval over seeds, and a verdict that is computed."""

from __future__ import annotations

import datetime
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslcore.evidence import evidence_path, merge_evidence
from sslcore.validate import require

Arm = Callable[[int], Any]
Runs = Sequence[float] | Sequence[Sequence[float]]  # values over seeds, or groups of them


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the values and its Student t-interval: mean -+ t(n-1) * s / sqrt(n). Needs at least two values."""
    from scipy.special import stdtrit  # scikit-learn brings scipy; scipy.stats itself is slow to import

    count = len(values)
    require(count >= 2, f"values: an interval needs at least 2, got {count}")
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * spread / math.sqrt(count)
    return mean, mean - half, mean + half


def spread_ratio(first: Runs, second: Runs, level: float = 0.95) -> tuple[float, float, float]:
    """Ratio of two standard deviations over the same seeds, std(first) / std(second), and its interval.

        F, r = var(first) / var(second), correlation(first, second)
        K = 1 + 2 * (1 - r^2) * t(n - 2)^2 / (n - 2)
        interval of the variances' ratio: F * (K -+ sqrt(K^2 - 1)); square roots of all three are returned

    first, second: n numbers each, in the order of the seeds; or lists of such lists, one a group (a set of labels,
        say): deviations are then from the mean of their own group, and each group costs one degree of freedom.
    A seed that is hard for both makes the two move together, and paired values then say more than an F-test of two
    separate samples would. With n = 10 and r = 0 the interval reaches from 0.47 to 2.11 times the ratio: spreads need
    many seeds. Exact for normal values; long tails make it too narrow. Raises ValueError for lists of different length,
    too few seeds, or values without spread. Source: Morgan 1939; Pitman 1939 (Biometrika 31).
    """
    from scipy.special import stdtrit

    pair = [list(map(list, runs)) if isinstance(runs[0], Sequence) else [list(runs)] for runs in (first, second)]
    sizes = [[len(group) for group in groups] for groups in pair]
    require(sizes[0] == sizes[1], f"first, second: expected one value a seed in both, got {sizes[0]} and {sizes[1]}")
    degrees = sum(sizes[0]) - len(sizes[0]) - 1
    require(degrees >= 1, f"first, second: expected at least 3 seeds, or several groups of 2, got {sizes[0]}")
    away = [[value - math.fsum(group) / len(group) for group in groups for value in group] for groups in pair]
    a, b = (math.fsum(value * value for value in values) for values in away)
    require(a > 0 and b > 0, "first, second: expected values that differ between seeds, got a constant list")
    shared = math.fsum(x * y for x, y in zip(*away, strict=True)) ** 2 / (a * b)
    factor = 1 + 2 * max(0.0, 1 - shared) * float(stdtrit(degrees, 0.5 + level / 2)) ** 2 / degrees
    half = math.sqrt(factor * factor - 1)
    return math.sqrt(a / b), math.sqrt(a / b * (factor - half)), math.sqrt(a / b * (factor + half))


def decide(effect: float, interval: tuple[float, float], margin: float, higher_is_better: bool = True) -> str:
    """holds | opposite | inconclusive.

    *holds*: the interval excludes zero on the claimed side and the mean effect is beyond the margin.
    *opposite*: the same, mirrored. Everything else, also a sure but negligible effect, is *inconclusive*.
    """
    low, high = interval if higher_is_better else (-interval[1], -interval[0])
    gain = effect if higher_is_better else -effect
    if low > 0 and gain > margin:
        return "holds"
    if high < 0 and gain < -margin:
        return "opposite"
    return "inconclusive"


@dataclass(repr=False)
class Comparison:
    """Result of `compare`. `effect` = mean over seeds of treatment - control; `interval` = its 95 % t-interval."""

    claim: str
    treatment: str
    control: str
    metric: str
    higher_is_better: bool
    margin: float
    seeds: list[int]
    values: dict[str, list[float]]
    secondary: dict[str, dict[str, list[float]]]
    effect: float
    interval: tuple[float, float]
    verdict: str
    images_seen: int
    seconds: float
    device: str
    versions: dict[str, str]
    date: str
    slug: str | None = field(default=None)
    scale: str = field(default="cpu")
    key: str = field(default="main")

    @property
    def effects(self) -> list[float]:
        """treatment - control, one number a seed."""
        return [t - c for t, c in zip(self.values[self.treatment], self.values[self.control], strict=True)]

    def table(self, style: str = "text") -> str:
        """Arms, mean with 95 % interval, every seed's value, secondary means; then effect and verdict.

        style: "text" or "markdown".
        """
        from sslcore.experiment_report import comparison_table

        return comparison_table(self, style)

    def plot(self, ax=None):
        """One dot a seed, a bar for the 95 % interval of each arm's mean; returns the matplotlib axes."""
        from sslcore.experiment_report import comparison_plot

        return comparison_plot(self, ax)

    def save(self, folder: str | Path) -> Path:
        """Write the claim under its key into `folder/slug.scale.json` (aside, then renamed). Returns the path."""
        require(bool(self.slug), "slug: compare(..., slug=...) is needed to save evidence")
        record = asdict(self)
        for name in ("slug", "scale", "key"):
            del record[name]
        record["interval"] = list(self.interval)
        return merge_evidence(folder, self.slug, self.scale, claims={self.key: record})

    def __repr__(self) -> str:
        return self.table("text")

    def _repr_markdown_(self) -> str:
        return self.table("markdown")


def run_facts(device: str | torch.device | None = None) -> dict[str, Any]:
    """Device name, library versions and UTC date of this run."""
    import sslcore

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    versions = {"sslcore": sslcore.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"device": name, "versions": versions, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")}


def _one_run(name: str, arm: Arm, seed: int, metric: str) -> tuple[dict[str, float], int]:
    """Run one arm with one seed; returns its finite metrics and the images it saw."""
    # Both arms of a pair start from the same generator state, so the effect is paired by seed.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        returned = arm(seed)
    metrics = dict(returned) if isinstance(returned, Mapping) else {metric: returned}
    images = int(metrics.pop("images_seen", 0))
    require(metric in metrics, f"arm {name!r}, seed {seed}: metric {metric!r} not among {', '.join(map(str, metrics))}")
    numbers = {}
    for key, value in metrics.items():
        try:
            numbers[key] = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"arm {name!r}, seed {seed}: {key} must be a number, got {value!r}") from error
        require(math.isfinite(numbers[key]), f"arm {name!r}, seed {seed}: {key} is {numbers[key]}; expected finite")
    return numbers, images


def compare(
    arms: Mapping[str, Arm],
    seeds: Sequence[int],
    *,
    claim: str,
    treatment: str,
    control: str,
    margin: float,
    metric: str = "value",
    higher_is_better: bool = True,
    slug: str | None = None,
    scale: str | None = None,
    key: str = "main",
    images_seen: int = 0,
    device: str | torch.device | None = None,
) -> Comparison:
    """Run every arm with every seed and decide whether the claim holds here.

    arms: {name: callable(seed) -> number, or dict of numbers holding `metric`}; further entries are kept as secondary
      metrics, an entry "images_seen" is added to the cost.
    claim: the sentence under test, "treatment beats control in metric". margin >= 0: the smallest effect that counts.
    key: the claim's name inside the notebook's evidence file (several claims a notebook: several keys).
    images_seen: images per run, for arms that return no count. scale: "cpu" | "gpu" (None: SSLCORE_SCALE, else cpu).
    Raises ValueError for fewer than three or repeated seeds, unknown arms, a negative margin, a missing or non-finite
    metric.
    """
    seeds = [int(seed) for seed in seeds]
    require(len(seeds) >= 3, f"seeds: expected at least 3, got {len(seeds)}")
    require(len(set(seeds)) == len(seeds), f"seeds: expected different seeds, got {seeds}")
    for role, name in (("treatment", treatment), ("control", control)):
        require(name in arms, f"{role}: {name!r} is not among the arms {', '.join(arms)}")
    require(treatment != control, f"treatment and control are the same arm {treatment!r}")
    require(0 <= margin < math.inf, f"margin: expected a finite number >= 0, got {margin}")
    require(bool(claim.strip()), "claim: expected a sentence, got nothing")
    scale = scale or os.environ.get("SSLCORE_SCALE", "cpu")
    evidence_path(".", slug or "unnamed", scale)  # an unknown scale fails now, not after the runs

    start, images = time.perf_counter(), 0
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for seed in seeds:
        for name, arm in arms.items():
            numbers, seen = _one_run(name, arm, seed, metric)
            runs[name].append(numbers)
            images += seen or images_seen
    values = {name: [run[metric] for run in results] for name, results in runs.items()}
    # A secondary metric is kept for the arms that report it with every seed.
    secondary = {
        name: {
            other: [run[other] for run in results]
            for other in results[0]
            if other != metric and all(other in run for run in results)
        }
        for name, results in runs.items()
    }
    if all(len(set(values[name])) == 1 for name in (treatment, control)):
        warnings.warn("no arm changed with its seed: the interval says nothing about chance", stacklevel=2)
    effect, low, high = t_interval([t - c for t, c in zip(values[treatment], values[control], strict=True)])
    return Comparison(
        claim=claim, treatment=treatment, control=control, metric=metric, higher_is_better=higher_is_better,
        margin=float(margin), seeds=seeds, values=values, secondary=secondary, effect=effect, interval=(low, high),
        verdict=decide(effect, (low, high), margin, higher_is_better), images_seen=images,
        seconds=round(time.perf_counter() - start, 2), slug=slug, scale=scale, key=key, **run_facts(device),
    )


if __name__ == "__main__":
    import sys

    from sslcore.bench.command import main

    sys.exit(main())
