"""The equations: pure functions of tensors, one file a family."""

from __future__ import annotations

from sslcore.objectives.clustering import power_law_prior, sinkhorn_knopp, swapped_prediction
from sslcore.objectives.codes import DVAETerms, dvae_loss, gumbel_softmax, masked_code_loss
from sslcore.objectives.collapse import effective_rank, embedding_std, prototype_usage
from sslcore.objectives.contextual import Data2VecTerms, contextual_targets, data2vec_loss
from sslcore.objectives.contrastive import info_nce, nt_xent
from sslcore.objectives.energy import EnergyTerms, contrastive_divergence
from sslcore.objectives.granular import MugsTerms, granular_clustering, granular_nce, mugs_total
from sslcore.objectives.hierarchical import HierarchicalTerms, hierarchical_cross_entropy
from sslcore.objectives.hog import hog_targets
from sslcore.objectives.kmeans import Clusters, TwoLevels, kmeans, pca_whiten, two_level_kmeans
from sslcore.objectives.lejepa import LeJEPATerms, lejepa, slice_moments
from sslcore.objectives.masked import masked_feature_loss, masked_pixel_loss, patchify, take_hidden, unpatchify
from sslcore.objectives.neighbours import leave_one_out_knn, leave_one_out_votes, supcon
from sslcore.objectives.next_cluster import next_cluster_loss
from sslcore.objectives.predictive import masked_latent_loss, next_embedding_loss
from sslcore.objectives.redundancy import BarlowTerms, VICRegTerms, barlow_twins, vicreg
from sslcore.objectives.selection import patch_selection_loss
from sslcore.objectives.self_distillation import dino_loss, ibot_patch_loss, koleo, negative_cosine, update_center
from sslcore.objectives.sigreg import epps_pulley, random_slices, sigreg
from sslcore.objectives.triplet import mine_negatives, mined_triplet_loss

__all__ = [
    "BarlowTerms",
    "Clusters",
    "DVAETerms",
    "Data2VecTerms",
    "EnergyTerms",
    "HierarchicalTerms",
    "LeJEPATerms",
    "MugsTerms",
    "TwoLevels",
    "VICRegTerms",
    "barlow_twins",
    "contextual_targets",
    "contrastive_divergence",
    "data2vec_loss",
    "dino_loss",
    "dvae_loss",
    "effective_rank",
    "embedding_std",
    "epps_pulley",
    "granular_clustering",
    "granular_nce",
    "gumbel_softmax",
    "hierarchical_cross_entropy",
    "hog_targets",
    "ibot_patch_loss",
    "info_nce",
    "kmeans",
    "koleo",
    "leave_one_out_knn",
    "leave_one_out_votes",
    "lejepa",
    "masked_code_loss",
    "masked_feature_loss",
    "masked_latent_loss",
    "masked_pixel_loss",
    "mine_negatives",
    "mined_triplet_loss",
    "mugs_total",
    "negative_cosine",
    "next_cluster_loss",
    "next_embedding_loss",
    "nt_xent",
    "patch_selection_loss",
    "patchify",
    "pca_whiten",
    "power_law_prior",
    "prototype_usage",
    "random_slices",
    "sigreg",
    "sinkhorn_knopp",
    "slice_moments",
    "supcon",
    "swapped_prediction",
    "take_hidden",
    "two_level_kmeans",
    "unpatchify",
    "update_center",
    "vicreg",
]
