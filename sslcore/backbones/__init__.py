"""Networks that turn images into tokens, heads on top of them, and their moving averages."""

from sslcore.backbones.attention import attention_weights
from sslcore.backbones.conv_predictor import ConvPredictor
from sslcore.backbones.convnets import StagedConvNet, resnet18, small_convnet
from sslcore.backbones.create import BACKBONES, create_backbone
from sslcore.backbones.decoder import ConvDecoder, MAEDecoder
from sslcore.backbones.ema import ema_copy, update_ema
from sslcore.backbones.heads import DINOHead, Prototypes, mlp
from sslcore.backbones.patch_pool import PatchPool, residual_trunk, with_fresh_group
from sslcore.backbones.positions import sincos_positions
from sslcore.backbones.regnet import regnet, regnet_widths
from sslcore.backbones.timm_bridge import TimmBackbone, timm_backbone
from sslcore.backbones.timm_vit import load_timm_vit
from sslcore.backbones.tokens import Tokens
from sslcore.backbones.vit import VisionTransformer

__all__ = [
    "BACKBONES",
    "ConvDecoder",
    "ConvPredictor",
    "DINOHead",
    "MAEDecoder",
    "PatchPool",
    "Prototypes",
    "StagedConvNet",
    "TimmBackbone",
    "Tokens",
    "VisionTransformer",
    "attention_weights",
    "create_backbone",
    "ema_copy",
    "load_timm_vit",
    "mlp",
    "regnet",
    "regnet_widths",
    "residual_trunk",
    "resnet18",
    "sincos_positions",
    "small_convnet",
    "timm_backbone",
    "update_ema",
    "with_fresh_group",
]
