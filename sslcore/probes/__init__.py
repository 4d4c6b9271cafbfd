"""Read-outs of frozen networks: each is fitted on train, chosen on val, reported on test, beside its controls."""

from sslcore.probes.frozen import extract, frozen
from sslcore.probes.knn import knn_eval, knn_predict
from sslcore.probes.linear import ProbeResult, linear_probe

__all__ = ["ProbeResult", "extract", "frozen", "knn_eval", "knn_predict", "linear_probe"]
