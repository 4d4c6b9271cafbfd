"""Readings on disk: named by what they depend on, checked when they are read, made again when they are damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from sslcore.files import written_aside
from sslcore.probes.network_report import Readings, ReportSets, read_network

READINGS_VERSION = 1  # raise it when read_network or the images change


class CacheError(ValueError):
    """A file of readings that cannot be trusted."""


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def readings_key(backbone: nn.Module, sets: ReportSets, architecture: str = "") -> str:
    """What readings depend on, as one SHA-256: weights and buffers, architecture, images, version of the code."""
    facts = {
        "weights": tensors_digest(backbone.state_dict()),
        "architecture": architecture,
        "img_size": sets.img_size,
        "sizes": asdict(sets.sizes),
        "version": READINGS_VERSION,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_readings(path: Path, readings: Readings) -> None:
    """Write readings with their own digest, aside and renamed."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous().clone() for name, tensor in readings.tensors.items()}
    words = {"skipped": readings.skipped, "facts": readings.facts, "sha256": tensors_digest(tensors)}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"readings": json.dumps(words)})


def load_readings(path: Path) -> Readings:
    """Read what save_readings wrote; CacheError for a file that is cut short, altered, or not of this kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            words = json.loads((file.metadata() or {}).get("readings", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator here)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CacheError(f"{path.name}: not readable ({error})") from error
    whole = isinstance(words, dict) and {"skipped", "facts", "sha256"} <= words.keys()
    if not whole or tensors_digest(tensors) != words["sha256"]:
        raise CacheError(f"{path.name}: its content differs from its checksum")
    return Readings(tensors, words["skipped"], words["facts"])


def cached_readings(
    backbone: nn.Module,
    sets: ReportSets,
    folder: str | Path | None = None,
    architecture: str = "",
    say: Callable[[str], object] = print,
) -> tuple[Readings, bool]:
    """Readings from the folder, or made and put there; and whether they came from there.

    A damaged file is named through `say` and made again. folder None: no cache.
    """
    if folder is None:
        return read_network(backbone, sets), False
    path = Path(folder) / f"{readings_key(backbone, sets, architecture)}.safetensors"
    if path.is_file():
        try:
            return load_readings(path), True
        except CacheError as error:
            say(f"cache: {error}; reading the network again")
    readings = read_network(backbone, sets)
    save_readings(path, readings)
    return readings, False
