"""Toy gates: can each embedded set tell a good representation from none?

    python data_scripts/toy_gates.py [--quick] [--seeds 2]

A set is fit for experiments when a small network trained *with* labels clears a stated bar on held-out images, while
raw pixels and the same network untrained (both read by nearest neighbours) stay a stated distance below it. Where the
gate is shut, a method's gain could not be seen: mend the set, not the story.
Writes chapters/00_start/toy_gates.cpu.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import small_convnet
from sslcore.data import compose_composites, compose_scenes, load
from sslcore.files import chapters_folder, write_text
from sslcore.probes import extract, knn_eval

ARMS = ("supervised", "pixels", "untrained")


@dataclass(frozen=True)
class Task:
    """Images and targets of both sides. targets: (N,) classes, or (N, C) presence."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pass:
    """One length of the test. bar: least supervised score; gap: least distance of the better control below it."""

    steps: int
    bar: float
    gap: float


@dataclass(frozen=True)
class Gate:
    """How a set is tested: what to make, how to score it, the whole test and the quick one."""

    make: Callable[[int, bool], Task]
    metric: str
    chance: float
    whole: Pass
    quick: Pass


def fashion_task(seed: int, quick: bool) -> Task:
    """Ten kinds of clothes."""
    train, *held_out = (load("fashion_mnist", split) for split in ("train", "val", "test"))
    # Nothing is chosen on val here, so both held-out parts are scored: half the noise.
    test = torch.cat([s.images for s in held_out]), torch.cat([s.labels for s in held_out])
    return Task((train.images, train.labels), test)


def stamps_task(seed: int, quick: bool) -> Task:
    """Which of 68 photos: other places, sizes, angles, lights and grounds in training and test."""
    look = {
        "num_objects": 1,
        "img_size": 32 if quick else 48,
        "size_range": (0.5, 0.9),
        "split": "test",
        "captions": False,
    }
    sets = [compose_scenes(n, seed=2 * seed + i, **look) for i, n in enumerate((4000 if quick else 8000, 1000))]
    known = torch.unique(sets[0].labels)
    (train, test) = ((s.images, torch.searchsorted(known, s.labels)) for s in sets)
    return Task(train, test)


def scenes_task(seed: int, quick: bool) -> Task:
    """Which of 68 photos are present among four."""
    look = {"num_objects": 4, "img_size": 64, "split": "test", "captions": False}
    sets = [compose_scenes(n, seed=2 * seed + i, **look) for i, n in enumerate((3000 if quick else 8000, 1000))]
    known = sets[0].extras["presence"].any(dim=0)
    (train, test) = ((s.images, s.extras["presence"][:, known].float()) for s in sets)
    return Task(train, test)


def composites_task(seed: int, quick: bool) -> Task:
    """Which two of six types of composite object are there: what tells is which parts belong to which body."""
    sets = [compose_composites(n, img_size=48, seed=2 * seed + i) for i, n in enumerate((4000, 1000))]
    (train, test) = ((s.images, s.extras["presence"].float()) for s in sets)
    return Task(train, test)


GATES = {
    "fashion_mnist": Gate(fashion_task, "accuracy", 0.1, Pass(1000, 0.86, 0.03), Pass(400, 0.85, 0.02)),
    "stamps": Gate(stamps_task, "accuracy", 1 / 68, Pass(500, 0.80, 0.40), Pass(200, 0.50, 0.20)),
    "composites": Gate(composites_task, "mean AUROC", 0.5, Pass(400, 0.95, 0.10), Pass(150, 0.90, 0.05)),
    "scenes": Gate(scenes_task, "mean AUROC", 0.5, Pass(800, 0.70, 0.10), Pass(250, 0.60, 0.05)),
}


def as_input(images: Tensor) -> Tensor:
    """uint8 -> float about zero."""
    return images.float() / 127.5 - 1


def mean_auroc(scores: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve, averaged over columns that hold both classes."""
    order = scores.argsort(dim=0).argsort(dim=0).double() + 1  # rank of each row in its column
    positive = targets.bool()
    count = positive.sum(dim=0).double()
    other = len(targets) - count
    area = ((order * positive).sum(dim=0) - count * (count + 1) / 2) / (count * other)
    return float(area[(count > 0) & (other > 0)].mean())


def neighbour_presence(train: Tensor, targets: Tensor, test: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Weighted vote of the k nearest scenes for each photo: (M, C). Ties are broken by the vote's weights."""
    bank, rows = F.normalize(train, dim=1), F.normalize(test, dim=1)
    similarity, nearest = (rows @ bank.T).topk(k, dim=1)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return (weight[..., None] * targets[nearest]).sum(dim=1)


def frozen_score(features: tuple[Tensor, Tensor], task: Task) -> float:
    """Nearest-neighbour score of (train, test) features."""
    centred = [side - features[0].mean(dim=0) for side in features]
    if task.train[1].ndim == 1:
        return knn_eval(centred[0], task.train[1], centred[1], task.test[1])
    return mean_auroc(neighbour_presence(centred[0], task.train[1], centred[1]), task.test[1])


def jittered(images: Tensor, generator: torch.Generator, reach: int = 1) -> Tensor:
    """Every image mirrored or not, and the batch moved by up to `reach` pixels each way (what leaves comes back)."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    shift = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    return images.roll(shift, dims=(-2, -1))


def supervised_score(network: nn.Module, task: Task, steps: int, seed: int, jitter: bool = True) -> float:
    """Train network and a linear layer on the labels; score on the test side. jitter pays off in long runs only."""
    images, targets = task.train
    classes = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    model = nn.ModuleList([network, nn.Linear(network.embed_dim, classes)])
    loss = F.cross_entropy if targets.ndim == 1 else F.binary_cross_entropy_with_logits
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(images), (128,), generator=generator)
        batch = jittered(images[index], generator) if jitter else images[index]
        logits = model[1](network(as_input(batch)).cls_token)
        optimizer.zero_grad(set_to_none=True)
        loss(logits, targets[index]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        logits = model[1](extract(network, task.test[0], preprocess=as_input))
    if targets.ndim == 1:
        return float((logits.argmax(dim=1) == task.test[1]).float().mean())
    return mean_auroc(logits, task.test[1])


def measure(name: str, seed: int, quick: bool = False) -> dict[str, float]:
    """Scores of the three arms on one set: {"supervised": ..., "pixels": ..., "untrained": ...}."""
    gate = GATES[name]
    task = gate.make(seed, quick)
    torch.manual_seed(seed)
    network = small_convnet(task.train[0].shape[1], widths=(32, 64, 128))
    sides = [images for images, _ in (task.train, task.test)]
    # Small pictures: a pixel-by-pixel match of large ones would only be worse.
    pixels = [F.adaptive_avg_pool2d(as_input(side), min(28, side.shape[-1])).flatten(1) for side in sides]
    untrained = [extract(network, side, preprocess=as_input) for side in sides]
    scores = {
        "pixels": frozen_score((pixels[0], pixels[1]), task),
        "untrained": frozen_score((untrained[0], untrained[1]), task),
    }
    steps = gate.quick.steps if quick else gate.whole.steps
    return scores | {"supervised": supervised_score(network, task, steps, seed, jitter=not quick)}


def is_open(name: str, scores: dict[str, float], quick: bool = False) -> bool:
    """True if the supervised score clears the bar and both controls stay the gap below it."""
    limits = GATES[name].quick if quick else GATES[name].whole
    best_control = max(scores["pixels"], scores["untrained"])
    return scores["supervised"] >= limits.bar and scores["supervised"] - best_control >= limits.gap


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and steps; prints, writes nothing")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    report, started = {}, time.time()
    for name, gate in GATES.items():
        runs = []
        for seed in range(arguments.seeds):
            runs.append(measure(name, seed, arguments.quick))
            print(name, seed, runs[-1], flush=True)
        mean = {arm: sum(run[arm] for run in runs) / len(runs) for arm in ARMS}
        report[name] = {
            "metric": gate.metric,
            "chance": round(gate.chance, 4),
            "bar": gate.whole.bar,
            "gap": gate.whole.gap,
            "values": {arm: [round(run[arm], 4) for run in runs] for arm in ARMS},
            "open": all(is_open(name, run, arguments.quick) for run in runs),
        }
        row = "  ".join(f"{arm} {mean[arm]:.3f}" for arm in ARMS)
        print(
            f"{name:14} {gate.metric:10} {row}  chance {gate.chance:.3f}  {'open' if report[name]['open'] else 'SHUT'}"
        )
    if not arguments.quick:
        about = {"seconds": round(time.time() - started), "device": "cpu", "python": platform.python_version()}
        about |= {"torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "seeds": list(range(arguments.seeds))}
        path = chapters_folder() / "00_start" / "toy_gates.cpu.json"
        write_text(path, json.dumps({"gates": report, **about}, indent=1) + "\n")
        print(f"wrote {path}")
    return int(not all(entry["open"] for entry in report.values()))


if __name__ == "__main__":
    raise SystemExit(main())
