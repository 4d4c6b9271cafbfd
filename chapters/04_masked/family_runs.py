"""Two minutes for each masked and predictive method, on the same pictures, tuned and read in the same ways.

    python chapters/04_masked/family_runs.py [--scale cpu|gpu|tiny] [--only NAME ...] [--seeds N ...]
    python chapters/04_masked/family_runs.py --time       milliseconds a step, from which the steps below were set

Every method trains on the same pictures of one photo each, about as long on one core. Its learning rate is the best of
a grid, by a linear probe on validation pictures after half the steps, with a seed and with photos that are not used
again. Then the network answers "which of 24 unseen photos is this?" from 10 labels a photo (a tenth of 100): kNN, a
linear probe, and fine-tuning of all weights; and binding is read on twins, layer by layer. Beside them stand the
untrained network, raw pixels, SimCLR, and, as an upper bound, the same network trained with the labels of the pictures.
Every finished run is kept under runs/family/. With all runs there, evidence/masked_family.SCALE.json is written.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sslcore import backbones, methods
from sslcore.data import ImageSet, compose_scenes, few_labels, load
from sslcore.evidence import merge_evidence
from sslcore.experiment import compare
from sslcore.files import chapters_folder, write_text
from sslcore.probes import binding_report, extract, knn_eval, linear_probe
from sslcore.training import fine_tune, fit
from sslcore.views import ViewPolicy, normalize

SIZE, PATCH = 64, 8
MARGIN = 0.02
PHOTOS, LABELS = 24, 10  # unseen photos, and labelled pictures of each
PILOT = 100  # the seed with which rates are chosen
PILOT_TUNING = (1e-3, 3e-3, 1e-2, 3e-2)  # of fine-tuning; the runs use the first two
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # the middle three, and one further while the best lies at an end


@dataclass(frozen=True)
class Scale:
    """What differs between a laptop and a GPU."""

    pictures: int  # of each of 190 photos
    batch_size: int
    seeds: tuple[int, ...]
    factor: float  # steps, relative to those of a minute on one core
    probe: tuple[int, int, int]
    tune_steps: int  # of fine-tuning
    views: int = 200  # of each unseen photo: half to train on, a quarter to choose, a quarter to test


SCALES = {
    "cpu": Scale(86, 32, (0, 1, 2), 2.0, (400, 100, 300), 100),
    "gpu": Scale(520, 128, (0, 1, 2, 3, 4), 3.0, (600, 150, 1000), 300),
    "tiny": Scale(2, 16, (0, 1, 2), 0.0, (100, 60, 60), 1, 48),
}


PHOTO_COUNT = len(load("stamps", "all"))


def vit(**settings: Any) -> nn.Module:
    """The network that all but a few methods share."""
    options = {"embed_dim": 64, "depth": 4, "num_heads": 4, "pos_embed": "sincos"} | settings
    return backbones.VisionTransformer(SIZE, PATCH, 3, **options)


CROP = ViewPolicy(SIZE, scale=(0.5, 1.0), jitter_probability=0.0, grayscale=0.0, flip=0.5)
COLOUR = ViewPolicy(SIZE, scale=(0.3, 1.0), flip=0.5)


@dataclass(frozen=True)
class Recipe:
    """make: a fresh method; steps: about a minute on one core with 32 images a step, see --time.

    control: the untrained network to compare with; a method whose network differs from the shared one has its own.
    read: the part of the method that is read out.
    """

    make: Callable[[], methods.Method]
    steps: int
    control: str = "untrained"
    read: str = "backbone"


def beit() -> methods.Method:
    """Codes of k-means on patches of 400 training pictures, found before training."""
    words = methods.PatchCodes.fit(normalize(single(3, "train", 12).images[:400]), 64, PATCH)
    return methods.BEiT(vit(), words, policy=CROP)


def data2vec2() -> methods.Method:
    """Four masks an image share one pass of the teacher. Positions are learned: sines would become the target."""
    settings = {"num_masks": 4, "momentum": 0.9, "end_momentum": 0.99, "decoder_depth": 2}
    return methods.Data2Vec2(vit(pos_embed="learned"), policy=CROP, **settings)


def selfie() -> methods.Method:
    """A conv net on every patch and a pool of four blocks; a hidden layer joins what is seen and where is asked."""
    pool = backbones.create_backbone(
        "patch_pool", widths=(16, 32, 64), img_size=SIZE, patch_size=PATCH, depth=4, num_heads=4
    )
    return methods.Selfie(pool, policy=CROP, question="mlp")


def cnn_jepa() -> methods.Method:
    """Three conv layers down to the same 8 x 8 cells; scattered masks and a small predictor, as its notebook found."""
    options = {"momentum": 0.97, "block_probability": 0.0, "predictor_depth": 1}
    return methods.CNNJEPA(backbones.small_convnet(3, (32, 64, 128)), policy=CROP, **options)


def arm_mamba() -> methods.Method:
    """Clusters of 2 x 2 patches, read in raster order."""
    network = backbones.VisionMamba(SIZE, PATCH, 3, 64, 4, 8, cluster=2)
    return methods.ARM(network, policy=CROP, decoder_dim=64, decoder_depth=1, decoder_heads=2)


ROTARY = {"pos_embed": "rope", "init_values": 0.1}
DECODER = {"decoder_dim": 64, "decoder_depth": 1, "decoder_heads": 2}
RECIPES = {
    "mae": Recipe(lambda: methods.MAE(vit(), policy=CROP, **DECODER), 900),
    "beit": Recipe(beit, 510),
    "maskfeat": Recipe(lambda: methods.MaskFeat(vit(), policy=CROP, mask_ratio=0.5), 400),
    "data2vec2": Recipe(data2vec2, 325, "untrained_data2vec2"),
    "selfie": Recipe(selfie, 250, "untrained_selfie"),
    "cnn_jepa": Recipe(cnn_jepa, 650, "untrained_cnn_jepa", "teacher_backbone"),
    "lejepa": Recipe(lambda: methods.LeJEPA(vit(), policy=(COLOUR, COLOUR), pool="mean"), 300),
    "nepa": Recipe(lambda: methods.NEPA(vit(**ROTARY), policy=CROP), 490, "untrained_nepa"),
    "arm_mamba": Recipe(arm_mamba, 260, "untrained_arm_mamba"),
    "simclr": Recipe(lambda: methods.SimCLR(vit(), policy=COLOUR, pool="mean", temperature=0.2), 300),
    "supervised": Recipe(lambda: methods.Supervised(vit(), PHOTO_COUNT, policy=CROP, pool="mean"), 560),
}
ARMS = (*RECIPES, *dict.fromkeys(recipe.control for recipe in RECIPES.values()))


def single(views: int, split: str, seed: int) -> ImageSet:
    """Pictures of one photo each, at any place, size and angle, on a coloured ground; labels say which photo."""
    count = views * (190 if split == "train" else 68)
    return compose_scenes(
        count, img_size=SIZE, num_objects=1, size_range=(0.4, 0.9), captions=False, split=split, seed=seed
    )


@functools.cache
def pictures(views: int, pilot: bool = False) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Photos that no network has seen: a tenth of the training half has labels; then val and test.

    pilot: other photos, to choose rates on.
    """
    found = single(views, "test", 55)
    names = found.labels.unique()
    names = names[:PHOTOS] if pilot else names[PHOTOS : 2 * PHOTOS]
    found = found.subset(torch.isin(found.labels, names))
    whole = ImageSet("unseen photos", "test", found.images, torch.searchsorted(names, found.labels))
    order = torch.arange(len(whole)) % 4
    train, val, test = (whole.subset(torch.isin(order, torch.tensor(part))) for part in ([0, 1], [2], [3]))
    return train.subset(few_labels(train.labels, LABELS)), val, test


@functools.cache
def twins(sizes: tuple[int, int, int]) -> list[ImageSet]:
    """Scenes to read binding on: train, val, and test with unseen photos."""
    return [load("twins", split, num=size) for split, size in zip(("train", "val", "test"), sizes, strict=True)]


def even_layers(network: nn.Module) -> bool:
    """Whether all layers lie on one grid; a conv net, whose maps shrink, is read at its last map only."""
    image = torch.zeros(1, 3, SIZE, SIZE, device=next(network.parameters()).device)
    with torch.no_grad():
        return len({layer.shape for layer in network(image, return_layers=True).layers}) == 1


def read(network: nn.Module, scale: Scale, seed: int, device: torch.device) -> dict[str, float]:
    """Every read-out of one network, as numbers in [0, 1]."""
    few, val, test = (part.to(device) for part in pictures(scale.views))
    features = {s: extract(network, part.images, "mean") for s, part in (("few", few), ("val", val), ("test", test))}
    found = {"knn": knn_eval(features["few"], few.labels, features["test"], test.labels, k=3)}
    parts = ((features["few"], few.labels), (features["val"], val.labels), (features["test"], test.labels))
    found["linear"] = linear_probe(*parts).accuracy
    options = {"steps": scale.tune_steps, "lr": (1e-3, 3e-3), "batch_size": 32, "policy": CROP, "device": device}
    found["fine_tuned"] = fine_tune(network, few, val, test, seed=seed, **options).accuracy
    scenes = [part.to(device) for part in twins(scale.probe)]
    by_layer = (
        network if even_layers(network) else {part.split: extract(network, part.images, "tokens") for part in scenes}
    )
    report = binding_report(by_layer, *scenes, controls=False, untrained=False)
    layers = {f"layer_{index}": score.auroc for index, score in report.layers.items()}
    return {**found, "binding": report.best.auroc, **layers}


def read_pixels(scale: Scale) -> dict[str, float]:
    """The same questions to raw pixels: 16 x 16 of the picture, and the 8 x 8 of each patch for binding."""
    few, val, test = ((F.avg_pool2d(part.images.float(), 4).flatten(1), part.labels) for part in pictures(scale.views))
    cells = {
        part.split: F.unfold(part.images.float(), PATCH, stride=PATCH).transpose(1, 2) for part in twins(scale.probe)
    }
    report = binding_report(cells, *twins(scale.probe), untrained=False)
    found = {"knn": knn_eval(*few, *test, k=3), "linear": linear_probe(few, val, test).accuracy}
    return found | {"binding": report.best.auroc, "colour_gap": report.controls["colour gap"].auroc}


@dataclass(frozen=True)
class Runs:
    """Where runs are kept, and what they share."""

    scale_name: str
    folder: Path
    device: torch.device

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    @functools.cached_property
    def data(self) -> ImageSet:
        return single(self.scale.pictures, "train", 11)

    def kept(self, name: str, make: Callable[[], dict]) -> dict:
        """A finished run, or `make` it now."""
        record = self.folder / f"{self.scale_name}_{name}.json"
        if not record.exists():
            found = make()
            write_text(record, json.dumps(found))
            print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)
        return json.loads(record.read_text())

    def network(
        self, name: str, seed: int, lr: float | None = None, share: float = 1.0
    ) -> tuple[nn.Module, float, int]:
        """The network of an arm, its training seconds and the images it saw; lr None takes the chosen rate.

        A method trains for its steps (a share of them); an untrained control is only made.
        """
        source = next(key for key, recipe in RECIPES.items() if name in (key, recipe.control))
        recipe, steps, seconds = RECIPES[source], 0, 0.0
        rate = (self.rate(name)[0] if lr is None else lr) if name in RECIPES else 0.0
        torch.manual_seed(seed)
        method = recipe.make().to(self.device)
        if name in RECIPES:
            steps = max(1, round(recipe.steps * self.scale.factor * share))
            options = {"lr": rate, "clip_norm": 3.0, "seed": seed, "device": self.device, "progress": False}
            seconds = fit(method, self.data, steps=steps, batch_size=self.scale.batch_size, **options).seconds
        return getattr(method, recipe.read).eval(), seconds, steps * self.scale.batch_size

    def pilot_pictures(self) -> list[ImageSet]:
        """Labelled and validation pictures of the photos that serve for choosing only."""
        return [part.to(self.device) for part in pictures(self.scale.views, pilot=True)[:2]]

    def rate(self, name: str) -> tuple[float, dict[float, float]]:
        """The rate with the best linear probe on validation pictures after half the steps, and all that were tried."""

        def score(lr: float) -> dict:
            network = self.network(name, PILOT, lr, 0.5)[0]
            features = [(extract(network, part.images, "mean"), part.labels) for part in self.pilot_pictures()]
            good = all(bool(f.isfinite().all()) for f, _ in features)
            return {"val_linear": linear_probe(*features, features[1]).val_accuracy if good else 0.0}

        tried: dict[float, float] = {}
        wanted = list(RATES[1:4]) if self.scale.factor else [RATES[1]]
        while wanted:
            for lr in wanted:
                tried[lr] = self.kept(f"rate_{name}_{lr:g}", lambda lr=lr: score(lr))["val_linear"]
            best = max(tried, key=lambda lr: (tried[lr], -lr))
            index = RATES.index(best)
            beside = RATES[max(index - 1, 0) : index + 2] if self.scale.factor else ()
            wanted = [lr for lr in beside if lr not in tried]
        return best, tried

    def fine_tuning_pilot(self, name: str) -> dict:
        """Validation accuracy by fine-tuning rate, and the mean norm of a weight matrix: pilot seed, half the steps."""

        def make() -> dict:
            network = self.network(name, PILOT, share=0.5)[0]
            few, val = self.pilot_pictures()
            options = {"steps": self.scale.tune_steps, "batch_size": 32, "policy": CROP, "device": self.device}
            tuned = fine_tune(network, few, val, val, lr=PILOT_TUNING, seed=PILOT, **options)
            norms = [float(weight.detach().norm()) for weight in network.parameters() if weight.ndim > 1]
            return {"norm": sum(norms) / len(norms)} | {f"{lr:.0e}": found for lr, found in tuned.curve.items()}

        return self.kept(f"tuning_{name}", make)

    def run(self, name: str, seed: int) -> dict:
        """Train (or find) one network and read it."""

        def make() -> dict:
            network, seconds, images = self.network(name, seed)
            found = read(network, self.scale, seed, self.device)
            return found | {"seconds": round(seconds, 1), "images_seen": images}

        return self.kept(f"{name}_{seed}", make)


def time_steps(steps: int = 6) -> None:
    """Print what a step costs here, and how many make a minute."""
    data = single(2, "train", 11)
    for name, recipe in RECIPES.items():
        method = recipe.make()
        fit(method, data, steps=2, batch_size=32, progress=False)
        begin = time.perf_counter()
        fit(method, data, steps=steps, batch_size=32, progress=False)
        each = (time.perf_counter() - begin) / steps
        print(f"{name}: {1000 * each:.0f} ms a step, {60 / each:.0f} steps a minute")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=sorted(SCALES), default="cpu")
    parser.add_argument("--only", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="*", type=int, help="run only these seeds and compare nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/family"))
    parser.add_argument("--time", action="store_true", help="only measure what a step costs")
    chosen = parser.parse_args(arguments)
    if chosen.time:
        return time_steps()
    device = torch.device("cuda" if chosen.scale == "gpu" else "cpu")
    chosen.runs.mkdir(parents=True, exist_ok=True)
    runs = Runs(chosen.scale, chosen.runs, device)
    for name in chosen.only:
        if name in RECIPES:
            runs.rate(name)
    for seed in runs.scale.seeds if chosen.seeds is None else chosen.seeds:
        for name in chosen.only:
            runs.run(name, seed)
    if chosen.seeds is not None or set(chosen.only) != set(ARMS):
        return None
    folder = chapters_folder() / "04_masked" / "evidence" if chosen.scale != "tiny" else chosen.runs
    shared = {"slug": "masked_family", "scale": "gpu" if chosen.scale == "gpu" else "cpu", "device": device}
    for name in RECIPES:
        for metric in ("linear", "fine_tuned", "binding"):
            pair = {arm: functools.partial(runs.run, arm) for arm in (name, RECIPES[name].control)}
            comparison = compare(
                pair, runs.scale.seeds, claim=f"{name} beats its untrained network ({metric})", treatment=name,
                control=RECIPES[name].control, margin=MARGIN, metric=metric, key=f"{name}_{metric}", **shared,
            )  # fmt: skip
            comparison.save(folder)
            print(comparison.verdict, comparison.claim, comparison.effect, comparison.interval, flush=True)
    rates = {name: {f"{lr:.0e}": value for lr, value in runs.rate(name)[1].items()} for name in RECIPES}
    chosen_rates = {name: runs.rate(name)[0] for name in RECIPES}
    pixels = runs.kept("pixels", lambda: read_pixels(runs.scale))
    piloted = [name for name in ("untrained", "mae", "beit", "selfie", "untrained_selfie") if name in ARMS]
    tuning = {name: runs.fine_tuning_pilot(name) for name in piloted}
    numbers = {"pixels": pixels, "rates": rates, "chosen": chosen_rates, "fine_tuning_pilot": tuning}
    merge_evidence(folder, shared["slug"], shared["scale"], numbers=numbers)
    return None


if __name__ == "__main__":
    main()
