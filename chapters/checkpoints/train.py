"""Train the course's base networks: one small ViT, nine objectives, the same photo scenes.

    python chapters/checkpoints/train.py checkpoints [--scale cpu|gpu]   networks that notebooks probe (seed 0)
    python chapters/checkpoints/train.py claims [--scale cpu|gpu]        several seeds: who binds?

Every finished run is kept under runs/base/, so a broken-off call goes on where it stopped.
At cpu scale the steps of a claim cost about the same compute for every objective; at gpu scale the steps are equal.
The checkpoints are the longest runs we could afford on two cores; their cards say how long.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslcore.backbones import create_backbone
from sslcore.data import Scenes, compose_scenes, load
from sslcore.experiment import Comparison, compare, run_facts
from sslcore.files import chapters_folder, write_text
from sslcore.hub import save_checkpoint
from sslcore.methods import (
    DINO,
    MAE,
    BEiT,
    Data2Vec2,
    LeJEPA,
    MaskFeat,
    Method,
    Mugs,
    PatchCodes,
    SimCLR,
    Supervised,
    SwAV,
)
from sslcore.probes import binding_report, extract, knn_eval
from sslcore.training import fit
from sslcore.views import ViewPolicy, normalize

SLUG = "object_binding_probes"
CROP = {"scale": (0.5, 1.0), "flip": 0.5}
COLOUR = {"scale": (0.3, 1.0), "flip": 0.5}
CLAIMED = ("mae", "simclr", "dino", "supervised")  # compared over seeds
KEPT = ("swav", "mugs", "lejepa", "maskfeat", "beit", "data2vec2")  # only checkpoints


@dataclass(frozen=True)
class Scale:
    """Everything that differs between a laptop and a GPU. steps: {task: {method: steps}}."""

    network: dict[str, Any]
    scenes: int
    batch_size: int
    seeds: tuple[int, ...]
    steps: dict[str, dict[str, int]]
    probe: tuple[int, int, int] = (600, 150, 1000)
    precision: dict[str, str] = field(default_factory=dict)
    decoder: tuple[int, int, int] = (64, 1, 2)
    num_codes: int = 128


BASE = {"img_size": 64, "num_heads": 4, "pos_embed": "sincos"}
SCALES = {
    "cpu": Scale(
        network={**BASE, "patch_size": 8, "embed_dim": 128, "depth": 4},
        scenes=16_384,
        batch_size=64,
        seeds=(0, 1, 2),
        precision=dict.fromkeys(("simclr", "dino", "supervised", *KEPT), "bf16"),  # a fifth faster on some CPUs
        steps={
            "checkpoints": {"mae": 6000, "simclr": 800, "dino": 600, "supervised": 1000}
            | {"swav": 600, "mugs": 400, "lejepa": 600, "maskfeat": 450, "beit": 1100, "data2vec2": 300},
            "claims": {"mae": 450, "simclr": 110, "dino": 110, "supervised": 280},
        },
    ),
    "gpu": Scale(
        network={**BASE, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3},
        scenes=100_000,
        batch_size=256,
        seeds=(0, 1, 2, 3, 4),
        steps={"checkpoints": dict.fromkeys((*CLAIMED, *KEPT), 6000), "claims": dict.fromkeys(CLAIMED, 6000)},
        decoder=(96, 2, 3),
    ),
    "tiny": Scale(  # for the test of this script
        network={**BASE, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
        scenes=64,
        batch_size=16,
        seeds=(0, 1, 2),
        steps={task: dict.fromkeys((*CLAIMED, *KEPT), 2) for task in ("checkpoints", "claims")},
        probe=(150, 60, 60),
    ),
}
LEARNING_RATES = dict.fromkeys((*CLAIMED, *KEPT), 1e-3) | dict.fromkeys(("mae", "maskfeat", "beit"), 1.5e-3)
LEARNING_RATES["data2vec2"] = 2e-3


def training_scenes(scale: Scale) -> Scenes:
    """Half with twins and half without, from the 190 training photos."""
    half = scale.scenes // 2
    twins = load("twins", "train", num=half, seed=11)
    others = load("twins", "train", num=half, seed=12, twin_pairs=0)
    presence = torch.cat([twins.extras["presence"], others.extras["presence"]])
    images, masks = torch.cat([twins.images, others.images]), torch.cat([twins.masks, others.masks])
    return Scenes(name="twins", split="train", images=images, masks=masks, extras={"presence": presence})


def architecture(name: str, scale: Scale) -> dict[str, Any]:
    """The one network; for data2vec 2.0 with small learned positions, or its targets come to say nothing but where."""
    return {**scale.network, "pos_embed": "learned"} if name == "data2vec2" else scale.network


def make_method(name: str, scale: Scale, num_classes: int) -> Method:
    """The objective `name` round a fresh network; weights follow torch's current seed."""
    network = create_backbone("vit", **architecture(name, scale))
    size = network.reference_grid[0] * network.patch_size
    crop = ViewPolicy(size, jitter_probability=0.0, grayscale=0.0, **CROP)
    width, depth, heads = scale.decoder
    if name == "mae":
        return MAE(network, policy=crop, decoder_dim=width, decoder_depth=depth, decoder_heads=heads)
    if name == "data2vec2":
        masks = {"num_masks": 4, "momentum": 0.97, "end_momentum": 0.99, "decoder_groups": 16}
        return Data2Vec2(network, policy=crop, **masks)
    if name == "maskfeat":
        return MaskFeat(network, policy=crop, mask_ratio=0.5)
    if name == "beit":
        scenes = normalize(load("twins", "train", num=400, seed=13).images)
        words = PatchCodes.fit(scenes, scale.num_codes, network.patch_size)
        return BEiT(network, words, policy=crop)
    if name == "simclr":
        return SimCLR(network, policy=ViewPolicy(size, **COLOUR), pool="mean", temperature=0.2)
    if name == "dino":
        policies = (ViewPolicy(3 * size // 4, scale=(0.4, 1.0)),) * 2 + (ViewPolicy(size // 2, scale=(0.1, 0.5)),)
        return DINO(network, policy=policies, local_crops=2, out_dim=256, momentum=0.99, freeze_last_layer=0.0)
    if name == "swav":
        policies = (ViewPolicy(3 * size // 4, scale=(0.3, 1.0)), ViewPolicy(size // 2, scale=(0.1, 0.5)))
        return SwAV(network, policy=policies, pool="mean", local_crops=2, num_prototypes=64, epsilon=0.015)
    if name == "lejepa":
        policies = (ViewPolicy(size, **COLOUR), ViewPolicy(size // 2, scale=(0.1, 0.3)))
        return LeJEPA(network, policy=policies, pool="mean")
    if name == "mugs":
        policies = (ViewPolicy(3 * size // 4, scale=(0.3, 1.0)),) * 2 + (ViewPolicy(size // 2, scale=(0.1, 0.5)),)
        settings = {"pool": "mean", "local_crops": 1, "projector_norm": "batch", "num_neighbours": 4}
        sizes = {"queue_size": 2048, "memory_size": 2048, "out_dim": 256, "momentum": 0.98, "freeze_last_layer": 0.0}
        return Mugs(network, policy=policies, temperature=0.1, standardize=True, **settings, **sizes)
    return Supervised(network, num_classes, target="presence", policy=crop)


def photo_identity(network: torch.nn.Module, device: torch.device, views: int = 10) -> float:
    """kNN accuracy of "which of the 68 held-out photos is this?", half of the pictures answering for the other half."""
    look = {"num_objects": 1, "size_range": (0.4, 0.8), "split": "test", "captions": False, "seed": 55}
    size = network.reference_grid[0] * network.patch_size
    pictures = compose_scenes(68 * views, img_size=size, **look)
    features = extract(network, pictures.images.to(device), pool="mean").cpu()
    half = len(features) // 2
    labels = pictures.labels
    return knn_eval(features[:half], labels[:half], features[half:], labels[half:], k=5)


def read(network: torch.nn.Module, scale: Scale, device: torch.device) -> dict[str, float]:
    """Binding (layer chosen on val) and photo identity of a frozen network."""
    sets = [
        load("twins", split, num=n).to(device) for split, n in zip(("train", "val", "test"), scale.probe, strict=True)
    ]
    report = binding_report(network, *sets, controls=False, untrained=False)
    layers = {f"layer_{index}": score.auroc for index, score in report.layers.items()}
    return {"binding": report.best.auroc, "identity": photo_identity(network, device), **layers}


def run(name: str, seed: int, task: str, scale_name: str, folder: Path, data: Scenes, device: torch.device) -> dict:
    """Train (or find) one network; its read-outs, seconds and images seen. Checkpoints also go to the hub."""
    scale = SCALES[scale_name]
    record = folder / f"{task}_{scale_name}_{name}_{seed}.json"
    if record.exists():
        return json.loads(record.read_text())
    torch.manual_seed(seed)
    steps = 0 if name == "untrained" else scale.steps[task][name]
    method = make_method("mae" if name == "untrained" else name, scale, data.extras["presence"].shape[1]).to(device)
    seconds = 0.0
    if steps:
        history = fit(
            method, data, steps=steps, batch_size=scale.batch_size, lr=LEARNING_RATES[name], seed=seed, device=device,
            precision=scale.precision.get(name, "auto"), clip_norm=3.0 if name in ("dino", "mugs") else None,
            checkpoint=folder / f"{task}_{scale_name}_{name}_{seed}.pt", checkpoint_every=100,
        )  # fmt: skip
        seconds = history.seconds  # of all parts, where a run was broken off
    method.backbone.eval()
    found = {**read(method.backbone, scale, device), "seconds": round(seconds, 1)}
    found["images_seen"] = steps * scale.batch_size
    if task == "checkpoints" and name != "untrained":
        facts = run_facts(device)
        card = {
            "architecture": {"name": "vit", "kwargs": architecture(name, scale)},
            "training": {"method": name, "data": "photo scenes, half with twins", "seed": seed, "steps": steps,
                         "batch_size": scale.batch_size, "lr": LEARNING_RATES[name], **found},
            **facts,
        }  # fmt: skip
        target = chapters_folder() / "checkpoints" if scale_name != "tiny" else folder
        save_checkpoint(
            f"{name}_vit" + ("_gpu" if scale_name == "gpu" else ""), method.backbone.cpu(), card, target, half=True
        )
    write_text(record, json.dumps(found))
    print(f"{task} {name} seed {seed}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)
    return found


def claims(scale_name: str, folder: Path, data: Scenes, device: torch.device) -> list[Comparison]:
    """Every arm over every seed once, read by several comparisons."""
    scale = SCALES[scale_name]
    names = (*CLAIMED, "untrained")
    arms = {
        name: (lambda seed, name=name: run(name, seed, "claims", scale_name, folder, data, device)) for name in names
    }
    shared = {"slug": SLUG, "scale": "gpu" if scale_name == "gpu" else "cpu", "device": device}
    questions = [
        ("binding_by_objective", "mae", "supervised", "binding", 0.02, "MAE binds patches better than supervision"),
        ("binding_mae_simclr", "mae", "simclr", "binding", 0.02, "MAE binds patches better than SimCLR"),
        ("binding_mae_untrained", "mae", "untrained", "binding", 0.02, "MAE binds patches better than no training"),
        ("binding_dino_untrained", "dino", "untrained", "binding", 0.02, "DINO binds patches better than no training"),
        ("binding_supervised_untrained", "supervised", "untrained", "binding", 0.02,
         "supervision binds patches better than no training"),
        ("identity_simclr_mae", "simclr", "mae", "identity", 0.02, "SimCLR identifies unseen photos better than MAE"),
    ]  # fmt: skip
    return [
        compare(arms, scale.seeds, claim=text, treatment=a, control=b, margin=margin, metric=metric, key=key, **shared)
        for key, a, b, metric, margin, text in questions
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("checkpoints", "claims"))
    parser.add_argument("--scale", choices=sorted(SCALES), default="cpu")
    parser.add_argument("--only", nargs="*", default=[*CLAIMED, *KEPT])
    parser.add_argument("--seeds", nargs="*", type=int, help="run only these seeds and compare nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/base"))
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda" if chosen.scale == "gpu" else "cpu")
    chosen.runs.mkdir(parents=True, exist_ok=True)
    data = training_scenes(SCALES[chosen.scale])
    if chosen.task == "checkpoints" or chosen.seeds:
        for seed in chosen.seeds or [0]:
            for name in chosen.only:
                run(name, seed, chosen.task, chosen.scale, chosen.runs, data, device)
        return
    folder = chapters_folder() / "00_start" / "evidence" if chosen.scale != "tiny" else chosen.runs
    for comparison in claims(chosen.scale, chosen.runs, data, device):
        print(comparison, comparison.save(folder), sep="\n")


if __name__ == "__main__":
    main()
