"""Read-outs of frozen networks: each is fitted on train, chosen on val, reported on test, beside its controls."""

from sslcore.probes.frozen import extract, frozen
from sslcore.probes.knn import knn_eval, knn_predict
from sslcore.probes.linear import ProbeResult, linear_probe
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

__all__ = [
    "BindingReport",
    "Pairs",
    "ProbeResult",
    "SameObjectProbe",
    "binding_auroc",
    "binding_report",
    "extract",
    "frozen",
    "knn_eval",
    "knn_predict",
    "linear_probe",
    "same_object_probe",
    "sample_pairs",
    "token_labels",
]
