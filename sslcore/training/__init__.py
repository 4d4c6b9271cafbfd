"""One training loop for every method: schedules, checkpoints that survive a kill, many ranks, curves."""

from sslcore.training.fine_tune import FineTuned, fine_tune
from sslcore.training.history import History, NonFiniteLossError
from sslcore.training.loop import fit
from sslcore.training.optimizers import LARS, OPTIMIZERS, make_optimizer, warmup_cosine

__all__ = [
    "LARS",
    "OPTIMIZERS",
    "FineTuned",
    "History",
    "NonFiniteLossError",
    "fine_tune",
    "fit",
    "make_optimizer",
    "warmup_cosine",
]
