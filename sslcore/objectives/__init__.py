"""The equations: pure functions of tensors, one file a family."""

from __future__ import annotations

from sslcore.objectives.collapse import effective_rank, embedding_std
from sslcore.objectives.contrastive import info_nce, nt_xent
from sslcore.objectives.hierarchical import HierarchicalTerms, hierarchical_cross_entropy
from sslcore.objectives.kmeans import Clusters, TwoLevels, kmeans, pca_whiten, two_level_kmeans
from sslcore.objectives.masked import masked_pixel_loss, patchify, unpatchify
from sslcore.objectives.redundancy import BarlowTerms, VICRegTerms, barlow_twins, vicreg
from sslcore.objectives.self_distillation import dino_loss, ibot_patch_loss, koleo, negative_cosine, update_center

__all__ = [
    "BarlowTerms",
    "Clusters",
    "HierarchicalTerms",
    "TwoLevels",
    "VICRegTerms",
    "barlow_twins",
    "dino_loss",
    "effective_rank",
    "embedding_std",
    "hierarchical_cross_entropy",
    "ibot_patch_loss",
    "info_nce",
    "kmeans",
    "koleo",
    "masked_pixel_loss",
    "negative_cosine",
    "nt_xent",
    "patchify",
    "pca_whiten",
    "two_level_kmeans",
    "unpatchify",
    "update_center",
    "vicreg",
]
