"""Train the patch network and pool that the Selfie notebook probes, on the photo scenes of the other checkpoints.

    python chapters/checkpoints/selfie.py [--scale cpu|gpu|tiny] [--runs FOLDER]

A broken-off run goes on where it stopped (runs/base/). The card says how long it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sslcore.backbones import create_backbone
from sslcore.data import load
from sslcore.experiment import run_facts
from sslcore.files import chapters_folder
from sslcore.hub import save_checkpoint
from sslcore.methods import Selfie
from sslcore.training import fit
from sslcore.views import ViewPolicy

NETWORK = {"img_size": 64, "patch_size": 8, "in_chans": 3, "widths": (16, 32, 64), "depth": 2, "num_heads": 4}
GPU = NETWORK | {"widths": (64, 128, 256), "blocks": 2, "stem_stride": 1, "depth": 3}
TINY = NETWORK | {"widths": (4, 8), "depth": 1}
# Scenes, steps, images a step. Objects lie anywhere, so what belongs in a hole follows from what is visible alone:
# the paper's sum cannot say that, one hidden layer behind it can.
SCALES = {"cpu": (NETWORK, 4096, 1500, 32), "gpu": (GPU, 100_000, 20_000, 256), "tiny": (TINY, 32, 2, 8)}
SETTINGS = {"question": "mlp", "mask_ratio": 0.25}
LR = 3e-3


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=sorted(SCALES), default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/base"))
    chosen = parser.parse_args(arguments)
    architecture, scenes, steps, batch_size = SCALES[chosen.scale]
    device = torch.device("cuda" if chosen.scale == "gpu" else "cpu")
    chosen.runs.mkdir(parents=True, exist_ok=True)
    images = torch.cat([load("twins", "train", num=scenes // 2, seed=11 + k, twin_pairs=1 - k).images for k in (0, 1)])
    torch.manual_seed(0)
    policy = ViewPolicy(64, scale=(0.5, 1.0), flip=0.5, jitter_probability=0.0, grayscale=0.0)
    method = Selfie(create_backbone("patch_pool", **architecture), policy=policy, **SETTINGS)
    history = fit(
        method, images, steps=steps, batch_size=batch_size, lr=LR, seed=0, device=device,
        checkpoint=chosen.runs / f"selfie_{chosen.scale}.pt", checkpoint_every=100,
    )  # fmt: skip
    last = history.loss[-50:]
    card = {
        "architecture": {"name": "patch_pool", "kwargs": architecture},
        "training": {"method": "selfie", **SETTINGS, "data": "photo scenes, half with one pair of twins", "seed": 0,
                     "steps": steps, "batch_size": batch_size, "lr": LR, "images_seen": steps * batch_size,
                     "seconds": round(history.seconds, 1), "last_loss": sum(last) / len(last)},
        **run_facts(device),
    }  # fmt: skip
    target = chapters_folder() / "checkpoints" if chosen.scale != "tiny" else chosen.runs
    name = "selfie_pool" + ("_gpu" if chosen.scale == "gpu" else "")
    save_checkpoint(name, method.backbone.eval().cpu(), card, target, half=True)
    print(name, card["training"])


if __name__ == "__main__":
    main()
