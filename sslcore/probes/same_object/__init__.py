"""Same-object probes: can one read from two tokens whether they lie on one object?"""

from sslcore.probes.same_object.agreement import attention_agreement, attention_logits, partial_correlation
from sslcore.probes.same_object.capacity import permuted_ids, place_r2
from sslcore.probes.same_object.curves import LayerCurve, all_layers, layer_curves, masked_layers
from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.intervention import EDITS, Edit, intervened
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.metrics import auroc, image_auroc, pair_accuracy
from sslcore.probes.same_object.outcomes import (
    grouping_ari,
    mean_interval,
    mean_iou,
    reconstruction_errors,
    segmentation_head,
)
from sslcore.probes.same_object.pairs import MATCHES, STRATA, Pairs, sample_pairs
from sslcore.probes.same_object.pointwise import PointwiseProbe, pointwise_probe
from sslcore.probes.same_object.probe import KINDS, SameObjectProbe
from sslcore.probes.same_object.report import BindingReport, Score, binding_auroc, binding_report
from sslcore.probes.same_object.strata import pair_strata, strata_auroc
from sslcore.probes.same_object.subspace import (
    Subspace,
    pca_subspace,
    probe_subspace,
    random_subspace,
    regression_subspace,
    spectrum,
    subspace_curves,
)

__all__ = [
    "EDITS",
    "KINDS",
    "MATCHES",
    "STRATA",
    "BindingReport",
    "Edit",
    "FittedProbe",
    "LayerCurve",
    "Pairs",
    "PointwiseProbe",
    "SameObjectProbe",
    "Score",
    "Subspace",
    "all_layers",
    "attention_agreement",
    "attention_logits",
    "auroc",
    "binding_auroc",
    "binding_report",
    "grouping_ari",
    "image_auroc",
    "intervened",
    "layer_curves",
    "masked_layers",
    "mean_interval",
    "mean_iou",
    "pair_accuracy",
    "pair_strata",
    "partial_correlation",
    "pca_subspace",
    "permuted_ids",
    "place_r2",
    "pointwise_probe",
    "probe_subspace",
    "random_subspace",
    "reconstruction_errors",
    "regression_subspace",
    "same_object_probe",
    "sample_pairs",
    "segmentation_head",
    "spectrum",
    "strata_auroc",
    "subspace_curves",
    "token_grid",
    "token_labels",
]
