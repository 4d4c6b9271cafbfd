"""Checks of the audit of a data set: what a filter keeps, and what slips through."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, steady


@steady
def check_sieve(fn: Callable | None = None) -> None:
    """fn(scores {stage: (N,)}, thresholds {stage: number}) -> keep (N,) bool."""
    if fn is None:
        from sslcore.data.audit import sieve as fn
    report = Report("sieve")
    scores = {"face": torch.tensor([0.9, 0.1, 0.1, 0.5, 0.0]), "person": torch.tensor([0.0, 0.8, 0.2, 0.1, 0.0])}

    def keep(given, face, person):
        kept = fn(given, {"face": face, "person": person})
        kept = getattr(kept, "keep", kept)
        right = isinstance(kept, torch.Tensor) and kept.dtype == torch.bool and kept.shape == (5,)
        if not right:
            report.expect(False, "five images give five bools", f"{type(kept).__name__} {kept}")
        return kept.float()

    report.close(keep(scores, 0.5, 0.5), torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0]),
                 "an image stays only if every score lies below its threshold", "all stages, and strictly below")
    turned = dict(reversed(scores.items()))
    report.close(keep(turned, 0.3, 0.15), keep(scores, 0.3, 0.15), "the order of the stages changes nothing",
                 "look thresholds up by name")
    strict, loose = keep(scores, 0.2, 0.2), keep(scores, 0.6, 0.6)
    report.expect((strict <= loose).all(), "higher thresholds keep at least as much", f"{strict} against {loose}")
    report.close(keep(scores, 0.0, 0.0), torch.zeros(5), "threshold 0 keeps nothing that was scored")


@steady
def check_residual_share(fn: Callable | None = None) -> None:
    """fn(prevalence, recalls, false_alarms) -> share of the kept images that should have gone."""
    if fn is None:
        from sslcore.data.audit import residual_share as fn
    report = Report("residual_share")

    def share(*arguments):
        return report.scalar(fn(*arguments))

    report.close(share(0.3, [0.0, 0.0], [0.0, 0.0]), 0.3, "blind detectors leave the prevalence")
    report.close(share(0.3, [1.0, 0.5], [0.0, 0.0]), 0.0, "one perfect detector leaves nothing")
    report.close(share(0.5, [0.8], [0.0]), 0.1 / 0.6, "the share is of what is kept, not of the whole set",
                 "missed / (missed + clean images that stayed)")
    report.close(share(0.2, [0.5, 0.5], [0.0, 0.0]), 0.05 / 0.85, "an image must slip past every stage",
                 "multiply (1 - recall) over the stages")
    report.close(share(0.2, [0.5], [0.5]), 0.2, "false alarms thin out the clean images and so raise the share",
                 "clean images stay with probability prod(1 - false_alarm)")
