"""Train from a shell, on one process or on several.

    python -m sslcore.training simclr --data fashion_mnist --steps 200
    torchrun --nproc-per-node 2 -m sslcore.training simclr --data scenes --backbone vit --steps 200 --checkpoint run.pt

    python -m sslcore.training simclr --data "shards/train-*.tar" --img-size 96 --set img_size=64 --workers 4

Under torchrun the batch is spread over the processes and process 0 writes the checkpoint.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sslcore.methods import METHODS, create_method
from sslcore.training.history import History
from sslcore.training.loop import PRECISIONS, fit
from sslcore.training.optimizers import OPTIMIZERS
from sslcore.training.ranks import leave_group
from sslcore.validate import require


def parser() -> argparse.ArgumentParser:
    """Every option of the command."""
    text = argparse.ArgumentDefaultsHelpFormatter
    options = argparse.ArgumentParser(
        "python -m sslcore.training", description=__doc__.split("\n")[0], formatter_class=text
    )
    options.add_argument("method", help="one of: " + ", ".join(sorted(METHODS)))
    options.add_argument(
        "--data", default="fashion_mnist", help="name of a set, or a folder or pattern of shards for stream_images"
    )
    options.add_argument("--img-size", type=int, default=256, help="stored side of streamed images")
    options.add_argument("--workers", type=int, default=2, help="processes that decode streamed images, for each rank")
    options.add_argument(
        "--skip-unreadable", action="store_true", help="leave out streamed images that can't be read, and count them"
    )
    options.add_argument("--backbone", default="vit", help="name, as for sslcore.backbones.create_backbone")
    options.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="argument of the method, as often as needed"
    )
    options.add_argument(
        "--set-backbone", action="append", default=[], metavar="NAME=VALUE", help="the same for the backbone"
    )
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--batch-size", type=int, default=256, help="images a step, over all processes")
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--optimizer", default="adamw", help="one of: " + ", ".join(sorted(OPTIMIZERS)))
    options.add_argument("--weight-decay", type=float, default=0.05)
    options.add_argument("--warmup", type=float, default=0.1, help="part of the steps in which lr rises")
    options.add_argument("--min-lr", type=float, default=0.0)
    options.add_argument("--clip-norm", type=float)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", help="cpu, cuda, cuda:1, ...; by default a GPU if there is one")
    options.add_argument("--precision", default="auto", choices=PRECISIONS)
    options.add_argument("--compile", action="store_true")
    options.add_argument("--channels-last", action="store_true")
    options.add_argument("--activation-checkpointing", action="store_true", help="less memory, a third more time")
    options.add_argument("--checkpoint", help="file to write and to go on from")
    options.add_argument("--checkpoint-every", type=int, default=0, metavar="STEPS")
    options.add_argument("--no-resume", dest="resume", action="store_false", help="start over, whatever is in the file")
    options.add_argument("--shared-views", dest="views_per_rank", action="store_false", help="the views of one process")
    options.add_argument("--fsdp", action="store_true", help="spread weights and optimiser over the processes too")
    options.add_argument("--history", metavar="JSON", help="file for the curves")
    return options


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """["a=1", "b=mean"] -> {"a": 1, "b": "mean"}: Python literals where they parse, text where they do not."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        require(bool(equals) and name.isidentifier(), f"expected NAME=VALUE, got {pair!r}")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def open_data(name: str, img_size: int, workers: int, skip: bool) -> tuple[Any, int, int]:
    """(set or stream, its channels, its side). What has a slash or a dot, or is there on disk, is a place."""
    from sslcore.data import load, stream_images

    if "/" in name or name.endswith(".tar") or Path(name).is_dir():
        on_error = "skip" if skip else "raise"
        stream = stream_images(name, img_size=img_size, workers=workers, on_error=on_error)
        return stream, stream.channels, stream.img_size
    data = load(name)
    return data, data.images.shape[1], data.images.shape[-1]


def train(arguments: argparse.Namespace) -> History:
    """Build the data, the backbone and the method that were named, and train."""
    from sslcore.backbones import create_backbone

    settings = vars(arguments).copy()
    name = settings.pop("method")
    where = [settings.pop(word) for word in ("data", "img_size", "workers", "skip_unreadable")]
    data, channels, side = open_data(*where)
    shape, networks = settings.pop("set_backbone"), settings.pop("backbone")
    chosen, history_file = assignments(settings.pop("set")), settings.pop("history")
    defaults = {"in_chans": channels}
    if networks == "vit":
        side = chosen.get("img_size") or side
        defaults |= {"img_size": side, "patch_size": 8 if side % 8 == 0 else 4}
    if name == "supervised" and data.classes is not None:
        chosen.setdefault("num_classes", len(data.classes))
    torch.manual_seed(settings["seed"])  # every process starts from the same weights
    method = create_method(name, create_backbone(networks, **{**defaults, **assignments(shape)}), **chosen)
    history = fit(method, data, **settings)
    if not dist.is_initialized() or dist.get_rank() == 0:
        if history_file:
            with open(history_file, "w") as file:
                json.dump(history.as_dict(), file)
        print(
            f"{name} on {len(data)} images: {len(history.steps)} steps, {history.images_seen} images, "
            f"loss {history.loss[0]:.4f} -> {history.loss[-1]:.4f}, {history.seconds:.1f} s"
        )
        if skipped := getattr(data, "skipped", None):
            first = next(iter(skipped))
            print(f"process 0 skipped {sum(skipped.values())} times {len(skipped)} unreadable images; first: {first}")
    return history


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; a wrong argument is told in one line and gives status 2."""
    options = parser()
    arguments = options.parse_args(words)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        on_cuda = torch.cuda.is_available() and (arguments.device or "cuda").startswith("cuda")
        if on_cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        train(arguments)
    except (ValueError, TypeError, FileNotFoundError) as error:
        options.error(str(error))
    finally:
        if several:
            leave_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
