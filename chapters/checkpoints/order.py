"""Train what the question of order needs: who binds better, and is it scale, data or the way of asking?

    python chapters/checkpoints/order.py [--only scenes_mae_1700_0 ...] [--scale cpu|tiny]

A run is named {data}_{objective}_{steps}_{seed}: data "scenes" (four objects, the set of train.py) or "single" (one
photo cut-out a picture, as in ImageNet), objective "mae" or "supervised". MAE and supervised runs of 1700 and 1000
steps cost the same compute. The decoder that belongs to mae_vit was not kept, so a new one is trained round the frozen
encoder: "decoder_mae_vit". Networks and decoders go to chapters/checkpoints/order/, beside the base checkpoints but
out of their list. A broken-off call goes on where it stopped (runs/order/).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from train import CROP, LEARNING_RATES, SCALES, Scale, make_method, training_scenes

from sslcore.data import Scenes, compose_scenes
from sslcore.experiment import run_facts
from sslcore.files import chapters_folder
from sslcore.hub import load_backbone, save_checkpoint
from sslcore.methods import MAE, Method
from sslcore.training import fit
from sslcore.views import ViewPolicy

RUNS = [
    "decoder_mae_vit",
    "single_mae_1700_0", "single_supervised_1000_0", "scenes_mae_1700_0", "scenes_supervised_4000_0",
]  # fmt: skip
DECODER_STEPS = 1500


def single_objects(scale: Scale) -> Scenes:
    """One photo cut-out on a ground, as many pictures as there are training scenes; presence has one true answer."""
    return compose_scenes(scale.scenes, num_objects=1, size_range=(0.4, 0.8), captions=False, seed=13)


def frozen_mae(scale: Scale) -> Method:
    """mae_vit with a fresh decoder; only the decoder learns."""
    network = load_backbone("mae_vit")
    crop = ViewPolicy(network.reference_grid[0] * network.patch_size, jitter_probability=0.0, grayscale=0.0, **CROP)
    width, depth, heads = scale.decoder
    method = MAE(network, policy=crop, decoder_dim=width, decoder_depth=depth, decoder_heads=heads)
    method.backbone.requires_grad_(False)
    return method


def save_decoder(name: str, decoder: nn.Module, folder: Path) -> None:
    """Weights of a decoder in half precision."""
    from safetensors.torch import save_file

    state = {key: value.detach().half().contiguous() for key, value in decoder.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")


def run(name: str, scale_name: str, runs: Path, folder: Path) -> None:
    """Train one network (or decoder) and save it with its card."""
    scale = SCALES[scale_name]
    kind, objective, *rest = name.split("_")
    steps, seed = (int(part) for part in rest) if kind != "decoder" else (DECODER_STEPS, 0)
    steps = steps if scale_name == "cpu" else 2
    data = single_objects(scale) if kind == "single" else training_scenes(scale)
    torch.manual_seed(seed)
    method = frozen_mae(scale) if kind == "decoder" else make_method(objective, scale, data.extras["presence"].shape[1])
    history = fit(
        method, data, steps=steps, batch_size=scale.batch_size, lr=LEARNING_RATES[objective], seed=seed, device="cpu",
        precision=scale.precision.get(objective, "auto"), checkpoint=runs / f"{name}_{scale_name}.pt",
        checkpoint_every=100,
    )  # fmt: skip
    facts = {"method": objective, "seed": seed, "steps": steps, "batch_size": scale.batch_size}
    facts |= {"data": "photo scenes, half with twins" if kind != "single" else "single photo cut-outs"}
    facts |= {"images_seen": steps * scale.batch_size, "seconds": round(history.seconds, 1), "loss": history.loss[-1]}
    if kind != "decoder":
        card = {"architecture": {"name": "vit", "kwargs": scale.network}, "training": facts, **run_facts("cpu")}
        save_checkpoint(name, method.backbone.eval(), card, folder, half=True)
    if objective == "mae":
        save_decoder(name if kind == "decoder" else f"decoder_{name}", method.decoder, folder)
    print(name, facts, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=("cpu", "tiny"), default="cpu")
    parser.add_argument("--only", nargs="*", default=RUNS)
    parser.add_argument("--runs", type=Path, default=Path("runs/order"))
    parser.add_argument("--folder", type=Path, default=chapters_folder() / "checkpoints" / "order")
    chosen = parser.parse_args(arguments)
    for folder in (chosen.runs, chosen.folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        run(name, chosen.scale, chosen.runs, chosen.folder)


if __name__ == "__main__":
    main()
