"""Networks that turn images into tokens, heads on top of them, and their moving averages."""

from sslcore.backbones.convnets import StagedConvNet, resnet18, small_convnet
from sslcore.backbones.ema import ema_copy, update_ema
from sslcore.backbones.heads import DINOHead, Prototypes, mlp
from sslcore.backbones.timm_vit import load_timm_vit
from sslcore.backbones.tokens import Tokens
from sslcore.backbones.vit import VisionTransformer

__all__ = [
    "DINOHead",
    "Prototypes",
    "StagedConvNet",
    "Tokens",
    "VisionTransformer",
    "ema_copy",
    "load_timm_vit",
    "mlp",
    "resnet18",
    "small_convnet",
    "update_ema",
]
