"""Read-outs of frozen networks: each is fitted on train, chosen on val, reported on test, beside its controls."""

from sslcore.probes.attachment import Attachment, adjusted_rand, attachment, part_to_whole, subtree_rand
from sslcore.probes.attention import attention_distance, attention_entropy, attention_maps, attention_rollout, rollout
from sslcore.probes.attentive import AttentiveResult, attentive_probe
from sslcore.probes.calibration import expected_calibration_error
from sslcore.probes.cka import cka, cka_matrix
from sslcore.probes.discovery import bounding_boxes, centre_boxes, corloc, lost, patch_keys, tokencut
from sslcore.probes.frozen import extract, frozen
from sslcore.probes.geometry import alignment, lidar, rankme, uniformity
from sslcore.probes.influence import token_influence
from sslcore.probes.knn import knn_eval, knn_predict
from sslcore.probes.linear import ProbeResult, linear_probe
from sslcore.probes.masks import Jaccard, dino_jaccard, mass_threshold
from sslcore.probes.network_report import NetworkReport, report
from sslcore.probes.pca_maps import PatchPCA, patch_pca
from sslcore.probes.same_object import (
    BindingReport,
    Pairs,
    SameObjectProbe,
    binding_auroc,
    binding_report,
    same_object_probe,
    sample_pairs,
    token_labels,
)
from sslcore.probes.tree_probe import TreeReport, dependency_masks, tree_probe
from sslcore.probes.trees import induce_trees, maximum_arborescence, subtrees, tree_depths
from sslcore.probes.untrained import untrained_copy

__all__ = [
    "Attachment",
    "AttentiveResult",
    "BindingReport",
    "Jaccard",
    "NetworkReport",
    "Pairs",
    "PatchPCA",
    "ProbeResult",
    "SameObjectProbe",
    "TreeReport",
    "adjusted_rand",
    "alignment",
    "attachment",
    "attention_distance",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attentive_probe",
    "binding_auroc",
    "binding_report",
    "bounding_boxes",
    "centre_boxes",
    "cka",
    "cka_matrix",
    "corloc",
    "dependency_masks",
    "dino_jaccard",
    "expected_calibration_error",
    "extract",
    "frozen",
    "induce_trees",
    "knn_eval",
    "knn_predict",
    "lidar",
    "linear_probe",
    "lost",
    "mass_threshold",
    "maximum_arborescence",
    "part_to_whole",
    "patch_keys",
    "patch_pca",
    "rankme",
    "report",
    "rollout",
    "same_object_probe",
    "sample_pairs",
    "subtree_rand",
    "subtrees",
    "token_influence",
    "token_labels",
    "tokencut",
    "tree_depths",
    "tree_probe",
    "uniformity",
    "untrained_copy",
]
