"""Small networks and small data that every method can train on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcore.backbones import PatchPool, Tokens, VisionMamba, VisionTransformer, residual_trunk, small_convnet
from sslcore.data.imageset import ImageSet
from sslcore.methods import METHODS, Method, PatchCodes, create_method

SMALL = {
    "arm": {"decoder_dim": 12, "decoder_depth": 1},
    "barlow_twins": {"projector_dims": (16, 16)},
    "beit": {"tokenizer": PatchCodes(torch.randn(5, 48, generator=torch.Generator().manual_seed(3)), 4)},
    "byol": {"projector_dims": (16, 8), "momentum": 0.9},
    "data2vec2": {"num_masks": 2, "mask_ratio": 0.7, "block": 2, "momentum": 0.9, "decoder_depth": 1},
    "cnn_jepa": {"momentum": 0.9, "predictor_depth": 1},
    "deeper_cluster": {"num_images": 24, "num_sub": 3},
    "dino": {
        "out_dim": 16,
        "hidden_dim": 16,
        "bottleneck_dim": 8,
        "local_crops": 2,
        "warmup_temp": 0.02,
        "momentum": 0.9,
    },
    "dvae": {"num_codes": 6, "code_dim": 8},
    "ebm": {"img_size": 16, "buffer_size": 20, "steps": 2, "step_size": 0.1},
    "lejepa": {"projector_dims": (16, 8), "num_slices": 6, "local_crops": 1},
    "look": {"projector_dims": (16, 8), "k": 3, "queue_size": 20, "momentum": 0.9},
    "mae": {"decoder_dim": 12, "decoder_depth": 1},
    "maskfeat": {},
    "moco": {"projector_dims": (16, 8), "queue_size": 20, "momentum": 0.9},
    "mugs": {
        "projector_dims": (16, 8),
        "predictor_dim": 16,
        "queue_size": 24,
        "memory_size": 16,
        "num_neighbours": 3,
        "out_dim": 16,
        "hidden_dim": 16,
        "bottleneck_dim": 8,
        "local_crops": 1,
        "momentum": 0.9,
    },
    "nepa": {},
    "selfie": {},
    "simclr": {"projector_dims": (16, 8)},
    "simsiam": {"projector_dims": (16, 8), "predictor_dim": 4},
    "supcon": {"projector_dims": (16, 8)},
    "supervised": {"num_classes": 3},
    "swav": {"projector_dims": (16, 8), "num_prototypes": 6, "local_crops": 2, "queue_size": 12},
    "transitive_invariance": {"embed_dims": (16, 8), "norm": None},
    "vqa": {"num_words": 9, "num_answers": 3, "length": 4, "frozen": False, "width": 8},
    "vicreg": {"projector_dims": (16, 16)},
}


OWN_NETWORK = {  # methods that train a network of their own kind
    "arm": lambda: VisionMamba(16, 4, 3, 12, depth=1, state_dim=4, cluster=2),
    "selfie": lambda: PatchPool(residual_trunk(3, (4, 8), stem_stride=1), img_size=16, patch_size=4, depth=1),
}


class Flat(nn.Module):
    """The image itself as its one token, so that a test can compute by hand what a method should do."""

    num_prefix_tokens, patch_size = 0, 4

    def __init__(self, embed_dim: int = 48) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tokens:
        flat = images.flatten(1) * self.scale
        return Tokens(cls_token=flat, patch_tokens=flat[:, None], grid=(1, 1))


def small_method(name: str, network: str = "vit", seed: int = 0, **settings: object) -> Method:
    torch.manual_seed(seed)
    vit = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
    backbone = VisionTransformer(**vit) if network == "vit" else small_convnet(3, (4, 8))
    if name in OWN_NETWORK:
        backbone = OWN_NETWORK[name]()
    return create_method(name, backbone, **{**SMALL[name], **settings})


def small_set(count: int = 24, side: int = 16) -> ImageSet:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    extras = {"tokens": torch.arange(4 * count).view(count, 4) % 9, "answers": torch.arange(count) % 3}
    return ImageSet("noise", "train", images, labels=torch.arange(count) % 3, classes=["a", "b", "c"], extras=extras)


def small_batch(count: int = 8) -> dict[str, object]:
    data = small_set(count)
    return {"images": data.images, "labels": data.labels, "index": torch.arange(count), **data.extras}


# Methods that hide patches or read them in order need a transformer; one masks feature maps and needs a conv net.
VIT_ONLY = ("beit", "data2vec2", "mae", "maskfeat", "nepa", *OWN_NETWORK)
CONVNET_ONLY = ("cnn_jepa",)
NOT_ON = {"vit": CONVNET_ONLY, "convnet": VIT_ONLY}
PAIRS = [(name, network) for name in METHODS for network in ("vit", "convnet") if name not in NOT_ON[network]]
