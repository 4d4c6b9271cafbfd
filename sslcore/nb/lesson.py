"""setup(): the one setup cell of every notebook."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslcore.evidence import SCALES, merge_evidence
from sslcore.files import chapters_folder
from sslcore.validate import require, unknown


@dataclass(frozen=True)
class Setup:
    """Where and how a notebook runs. `slug` names its evidence, `scale` chooses its constants (`pick`)."""

    chapter: str
    slug: str
    scale: str
    device: torch.device
    seed: int
    evidence_folder: Path
    checkpoints_folder: Path

    def pick(self, *, cpu: Any, gpu: Any) -> Any:
        """The constant for this scale: `steps = lesson.pick(cpu=200, gpu=20_000)`."""
        return gpu if self.scale == "gpu" else cpu

    def save(self, *comparisons) -> None:
        """Write each Comparison into this notebook's evidence file and print one line for each."""
        for result in comparisons:
            if result.slug is None:
                result.slug, result.scale = self.slug, self.scale
            require(result.slug == self.slug, f"comparison: slug {result.slug!r}, but this notebook is {self.slug!r}")
            path = result.save(self.evidence_folder)
            print(f"{result.verdict}: {result.claim} (effect {result.effect:+.3f}, saved as {path.name}: {result.key})")

    def record(self, name: str, numbers: dict[str, Any]) -> None:
        """Keep further numbers (nested dicts of finite numbers) in the evidence file, for prose to quote as
        `numbers.name....`. Raises EvidenceError for anything else."""
        merge_evidence(self.evidence_folder, self.slug, self.scale, numbers={name: numbers})

    def readout(self, name: str, metric: str, value: float, **controls: float) -> None:
        """Record the attention or binding number of this notebook for the scoreboard.

        name: "attention" | "binding"; metric: what the number is; controls: e.g. untrained=0.52, position=0.6.
        """
        numbers = {key: float(number) for key, number in {"value": value, **controls}.items()}
        merge_evidence(self.evidence_folder, self.slug, self.scale, readouts={name: {"metric": metric, **numbers}})
        others = "".join(f", {key} {number:.3f}" for key, number in numbers.items() if key != "value")
        print(f"{name}: {metric} {numbers['value']:.3f}{others}")


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy's legacy generator and random."""
    import numpy

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _device(scale: str) -> torch.device:
    chosen = os.environ.get("SSLCORE_DEVICE")
    if chosen:
        return torch.device(chosen)
    if scale == "cpu":
        return torch.device("cpu")  # so that slug.cpu.json means the same on every machine
    require(torch.cuda.is_available(), "scale gpu needs a CUDA device; unset SSLCORE_SCALE or set it to cpu")
    return torch.device("cuda")


def _set_threads(scale: str) -> None:
    """cpu scale: at most two threads, so times compare with the cost boxes; SSLCORE_THREADS overrides."""
    chosen = os.environ.get("SSLCORE_THREADS") or os.environ.get("OMP_NUM_THREADS")
    if chosen:
        torch.set_num_threads(int(chosen))
    elif scale == "cpu":
        torch.set_num_threads(min(2, os.cpu_count() or 1))


def setup(chapter: str, seed: int = 0) -> Setup:
    """Seeds, threads, figure style and places of a notebook; prints one line saying what runs.

    chapter: "NN_family/slug", e.g. "01_contrastive/look". The scale comes from SSLCORE_SCALE (cpu unless set);
    the evidence folder from SSLCORE_EVIDENCE if set (tests use it so that a check never rewrites what is committed).
    Raises ValueError for a malformed chapter, an unknown scale, or scale gpu without a CUDA device.
    """
    import sslcore
    from sslcore.nb.style import use_style

    family, _, slug = chapter.partition("/")
    require(bool(family and slug) and "/" not in slug, f'chapter: expected "NN_family/slug", got {chapter!r}')
    scale = os.environ.get("SSLCORE_SCALE", "cpu")
    if scale not in SCALES:
        unknown("SSLCORE_SCALE", scale, SCALES)
    device = _device(scale)
    seed_everything(seed)
    _set_threads(scale)
    use_style()
    chapters = chapters_folder()
    evidence = os.environ.get("SSLCORE_EVIDENCE")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"sslcore {sslcore.__version__} · torch {torch.__version__} · scale {scale} · {name} · seed {seed}")
    return Setup(
        chapter=chapter,
        slug=slug,
        scale=scale,
        device=device,
        seed=seed,
        evidence_folder=Path(evidence) if evidence else chapters / family / "evidence",
        checkpoints_folder=chapters / "checkpoints",
    )
