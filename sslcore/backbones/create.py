"""Backbones by name, for configurations and checkpoints."""

from __future__ import annotations

from torch import nn

from sslcore.backbones.convnets import resnet18, small_convnet
from sslcore.backbones.dependency_vit import DependencyViT
from sslcore.backbones.mamba import VisionMamba
from sslcore.backbones.patch_pool import patch_pool
from sslcore.backbones.regnet import regnet
from sslcore.backbones.timm_bridge import timm_backbone
from sslcore.backbones.vit import VisionTransformer
from sslcore.validate import unknown

BACKBONES = {
    "vit": VisionTransformer,
    "resnet18": resnet18,
    "convnet": small_convnet,
    "regnet": regnet,
    "patch_pool": patch_pool,
    "mamba": VisionMamba,
    "dependency_vit": DependencyViT,
}


def create_backbone(name: str, **options: object) -> nn.Module:
    """Build a network of BACKBONES by its name, or "timm/<model name>", with its keyword options.

    Raises ValueError naming the known choices for any other name.
    """
    if name.startswith("timm/"):
        return timm_backbone(name.removeprefix("timm/"), **options)
    if name not in BACKBONES:
        unknown("backbone", name, [*BACKBONES, "timm/<model name>"])
    return BACKBONES[name](**options)
