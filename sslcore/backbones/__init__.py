"""Networks that turn images into tokens, heads on top of them, and their moving averages."""

from sslcore.backbones.attention import attention_weights
from sslcore.backbones.conv_predictor import ConvPredictor
from sslcore.backbones.convnets import StagedConvNet, resnet18, small_convnet
from sslcore.backbones.create import BACKBONES, create_backbone
from sslcore.backbones.cross_decoder import CrossDecoder, cluster_mask
from sslcore.backbones.decoder import ConvDecoder, MAEDecoder
from sslcore.backbones.dependency_vit import DependencyTokens, DependencyViT, Lite
from sslcore.backbones.ema import ema_copy, update_ema
from sslcore.backbones.heads import DINOHead, Prototypes, mlp
from sslcore.backbones.mamba import VisionMamba, cluster_order, four_directions
from sslcore.backbones.mamba_block import MambaBlock
from sslcore.backbones.patch_pool import PatchPool, residual_trunk, with_fresh_group
from sslcore.backbones.positions import sincos_positions
from sslcore.backbones.regnet import regnet, regnet_widths
from sslcore.backbones.reversed_attention import ReversedAttention, reversed_weights
from sslcore.backbones.scan import linear_scan, selective_scan
from sslcore.backbones.scan_matrix import scan_matrix, ssd_scan
from sslcore.backbones.timm_bridge import TimmBackbone, timm_backbone
from sslcore.backbones.timm_vit import load_timm_vit
from sslcore.backbones.tokens import Tokens
from sslcore.backbones.vit import VisionTransformer

__all__ = [
    "BACKBONES",
    "ConvDecoder",
    "ConvPredictor",
    "CrossDecoder",
    "DINOHead",
    "DependencyTokens",
    "DependencyViT",
    "Lite",
    "MAEDecoder",
    "MambaBlock",
    "PatchPool",
    "Prototypes",
    "ReversedAttention",
    "StagedConvNet",
    "TimmBackbone",
    "Tokens",
    "VisionMamba",
    "VisionTransformer",
    "attention_weights",
    "cluster_mask",
    "cluster_order",
    "create_backbone",
    "ema_copy",
    "four_directions",
    "linear_scan",
    "load_timm_vit",
    "mlp",
    "regnet",
    "regnet_widths",
    "residual_trunk",
    "resnet18",
    "reversed_weights",
    "scan_matrix",
    "selective_scan",
    "sincos_positions",
    "small_convnet",
    "ssd_scan",
    "timm_backbone",
    "update_ema",
    "with_fresh_group",
]
