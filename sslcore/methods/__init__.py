"""One file a paper: which views, which networks, which objective."""

from __future__ import annotations

from typing import Any

from torch import nn

from sslcore.methods.arm import ARM
from sslcore.methods.barlow_twins import BarlowTwins
from sslcore.methods.beit import BEiT
from sslcore.methods.byol import BYOL
from sslcore.methods.cnn_jepa import CNNJEPA
from sslcore.methods.data2vec2 import Data2Vec2
from sslcore.methods.deeper_cluster import DeeperCluster
from sslcore.methods.dino import DINO
from sslcore.methods.dvae import DVAE
from sslcore.methods.ebm import EBM
from sslcore.methods.lejepa import LeJEPA
from sslcore.methods.look import LOOK
from sslcore.methods.mae import MAE
from sslcore.methods.maskfeat import MaskFeat
from sslcore.methods.method import Method
from sslcore.methods.moco import MoCo
from sslcore.methods.mugs import Mugs
from sslcore.methods.nepa import NEPA
from sslcore.methods.selfie import Selfie
from sslcore.methods.simclr import SimCLR
from sslcore.methods.simsiam import SimSiam
from sslcore.methods.supcon import SupCon
from sslcore.methods.supervised import Supervised
from sslcore.methods.swav import SwAV
from sslcore.methods.tokenizers import PatchCodes
from sslcore.methods.transitive_invariance import TransitiveInvariance
from sslcore.methods.vicreg import VICReg
from sslcore.methods.vqa import VQA
from sslcore.validate import unknown

METHODS: dict[str, type[Method]] = {
    "arm": ARM,
    "barlow_twins": BarlowTwins,
    "beit": BEiT,
    "byol": BYOL,
    "data2vec2": Data2Vec2,
    "cnn_jepa": CNNJEPA,
    "deeper_cluster": DeeperCluster,
    "dino": DINO,
    "dvae": DVAE,
    "ebm": EBM,
    "lejepa": LeJEPA,
    "look": LOOK,
    "mae": MAE,
    "maskfeat": MaskFeat,
    "moco": MoCo,
    "mugs": Mugs,
    "nepa": NEPA,
    "selfie": Selfie,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "supcon": SupCon,
    "supervised": Supervised,
    "swav": SwAV,
    "transitive_invariance": TransitiveInvariance,
    "vicreg": VICReg,
    "vqa": VQA,
}


def create_method(name: str, backbone: nn.Module, **settings: Any) -> Method:
    """A method by its name in METHODS, with its keyword arguments. Raises ValueError listing the known names."""
    if name not in METHODS:
        unknown("method", name, METHODS)
    return METHODS[name](backbone, **settings)


__all__ = [
    "ARM",
    "BYOL",
    "CNNJEPA",
    "DINO",
    "DVAE",
    "EBM",
    "LOOK",
    "MAE",
    "METHODS",
    "NEPA",
    "VQA",
    "BEiT",
    "BarlowTwins",
    "Data2Vec2",
    "DeeperCluster",
    "LeJEPA",
    "MaskFeat",
    "Method",
    "MoCo",
    "Mugs",
    "PatchCodes",
    "Selfie",
    "SimCLR",
    "SimSiam",
    "SupCon",
    "Supervised",
    "SwAV",
    "TransitiveInvariance",
    "VICReg",
    "create_method",
]
