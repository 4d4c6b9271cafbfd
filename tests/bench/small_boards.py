"""Tiny checkpoints in a folder, and a board of planted numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from sslcore.backbones import create_backbone
from sslcore.bench import Leaderboard
from sslcore.hub import save_checkpoint
from sslcore.probes.network_report import Sizes
from sslcore.probes.same_object import BindingReport, Score

SHAPE = {"img_size": 64, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
SMALL = Sizes(140, (0, 0, 0), 10, (40, 16, 16))


def tiny_checkpoints(folder: Path, names: tuple[str, ...] = ("first_vit", "second_vit")) -> Path:
    """Random networks of one shape under the given names; as small as they come."""
    for number, name in enumerate(names):
        torch.manual_seed(number)
        network = create_backbone("vit", **SHAPE)
        save_checkpoint(name, network, {"architecture": {"name": "vit", "kwargs": SHAPE}}, folder)
    return folder


def planted_board(count: int = 6) -> Leaderboard:
    """Networks a, b, c, ... whose transfer rises with binding, an untrained row and pixels."""
    names = [chr(ord("a") + number) for number in range(count)]
    rows: dict = {}
    curves = {}
    for number, name in enumerate(names):
        binding = 0.5 + 0.05 * number
        rows[name] = {"binding": binding, "binding_low": binding - 0.02, "binding_high": binding + 0.02}
        rows[name] |= {"knn_photos": 0.1 * number, "rankme": -1.0 * number, "gflops": 0.11, "params": 1_000_000}
        scores = {layer: Score(0.5 + 0.01 * layer * number, 0.4, 0.9, 0.5) for layer in range(3)}
        curves[name] = BindingReport(scores, 2, {}, {})
    del rows[names[-1]]["rankme"]
    rows["untrained"] = {"binding": 0.51, "binding_low": 0.5, "binding_high": 0.52, "knn_photos": 0.05}
    rows["pixels"] = {"knn_photos": 0.2}
    alike = torch.full((count, count), 0.3).fill_diagonal_(1).double()
    return Leaderboard(rows, curves, names, alike, ["untrained"], {names[0]: {"LOST": "no patches"}})
