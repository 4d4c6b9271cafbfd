"""One pass of a network over the images of a card: everything the probes need, and what does not apply."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sslcore.probes.attention import query_map
from sslcore.probes.frozen import device_of, frozen, prepare, run_frozen
from sslcore.probes.network_report.images import SPLITS, ReportSets
from sslcore.probes.network_report.network import Preprocess, name_of, network_cost
from sslcore.validate import check_finite, require

MOST_LAYERS = 7  # of a deep network: evenly spaced, first and last among them
LEAST_PATCHES = 16  # below a 4 x 4 grid there is no shape to find


@dataclass
class Readings:
    """What a frozen network said. tensors: named features on the CPU, those with three axes and more in half precision.

    photos_SPLIT_cls, photos_SPLIT_mean (N, D), photos_SPLIT_tokens (N, T, D) from a coarser grid where there are many;
    garments_SPLIT_cls, garments_SPLIT_mean; scenes_SPLIT_layers (L, N, T, D); singles_attention (N, H, h, w) and
    singles_keys (N, T, D). Those a network cannot give are missing. skipped: probe -> why it does not apply.
    facts: numbers and words, ready for JSON.
    """

    tensors: dict[str, Tensor]
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)


def kept(name: str, tensor: Tensor) -> Tensor:
    """On the CPU; three axes and more in half precision unless a value is too large. ValueError if not finite."""
    tensor = tensor.detach().float().cpu()
    check_finite(name, tensor)
    return tensor.half() if tensor.ndim > 2 and float(tensor.abs().max()) < 65_504 else tensor.contiguous()


def coarser(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, h * w, D) averaged over squares until the shorter side has at most 13 of them."""
    step = max(1, min(grid) // 7)
    while grid[0] % step or grid[1] % step:
        step -= 1
    if step == 1:
        return tokens
    squares = tokens.unflatten(1, (grid[0] // step, step, grid[1] // step, step))
    return squares.mean((2, 4)).flatten(1, 2)


class KeyCatcher:
    """Keeps the attention keys (B, patches, D) of the last block that has a qkv projection over all tokens."""

    def __init__(self, backbone: nn.Module) -> None:
        found = [module for name, module in backbone.named_modules() if name.split(".")[-1] == "qkv"]
        self.output: Tensor | None = None
        self.handle = found[-1].register_forward_hook(self._keep) if found else None

    def _keep(self, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.output = output

    def keys(self, tokens: object) -> Tensor | None:
        """Keys of the batch that gave `tokens`; None where the projection is not over all its tokens."""
        output, prefix = self.output, tokens.num_prefix_tokens
        batch, patches = tokens.patch_tokens.shape[:2]
        fits = output is not None and output.ndim == 3 and tuple(output.shape[:2]) == (batch, prefix + patches)
        return output.chunk(3, dim=-1)[1][:, prefix:] if fits and output.shape[2] % 3 == 0 else None

    def close(self) -> None:
        """Leave the network as it was."""
        if self.handle is not None:
            self.handle.remove()


def refused(backbone: nn.Module, image: Tensor, preprocess: Preprocess, **wanted: object) -> str | None:
    """Why the backbone does not give what is asked of it, in its own words; None where it does."""
    try:
        with frozen(backbone):
            tokens = backbone(prepare(backbone, image, preprocess), **wanted)
    except (ValueError, TypeError) as error:
        return str(error)
    given = tokens.layers if "return_layers" in wanted else tokens.attentions
    return None if given else f"{name_of(backbone)} gives none"


def chosen_layers(tokens: object) -> tuple[list[int], str]:
    """Indices into tokens.layers that share one grid and width, and a line about what was left out.

    Transformers of one resolution: all, or MOST_LAYERS evenly spaced. Otherwise the deepest stage with at least a
    7 x 7 grid, or the finest there is.
    """
    prefix, last = tokens.num_prefix_tokens, tokens.layers[-1]
    if all(layer.shape == last.shape for layer in tokens.layers):
        depth = len(tokens.layers)
        spread = torch.linspace(0, depth - 1, min(depth, MOST_LAYERS)).round().long().unique().tolist()
        return spread, "" if len(spread) == depth else f"{len(spread)} of {depth} layers, evenly spaced"
    lengths = [layer.shape[1] - (prefix if layer.shape[1] == prefix + tokens.patch_tokens.shape[1] else 0)
               for layer in tokens.layers]  # fmt: skip
    fine = [index for index, length in enumerate(lengths) if length >= 49]
    index = max(fine) if fine else max(range(len(lengths)), key=lambda i: lengths[i])
    return [index], f"stage {index} of {len(lengths)} only: stages differ in grid and width"


def read_labelled(backbone: nn.Module, name: str, sets: dict, batch_size: int, preprocess: Preprocess, tokens: bool):
    """Pooled features of a labelled set's splits, and its patch tokens where `tokens` is True."""
    found: dict[str, Tensor] = {}
    for split, images in sets.items():
        parts: dict[str, list[Tensor]] = {}
        for output in run_frozen(backbone, fitted(backbone, images.images), batch_size, preprocess):
            parts.setdefault("cls", []).append(output.cls_token)
            if output.patch_tokens.shape[1] > 0:
                parts.setdefault("mean", []).append(output.patch_tokens.mean(1))
                if tokens:
                    parts.setdefault("tokens", []).append(coarser(output.patch_tokens, tuple(output.grid)))
        found |= {f"{name}_{split}_{kind}": kept(f"{name} {kind}", torch.cat(rows)) for kind, rows in parts.items()}
    return found


def fitted(backbone: nn.Module, images: Tensor) -> Tensor:
    """Three channels, or their mean for a network that reads one."""
    if getattr(backbone, "in_chans", 3) == 3:
        return images
    return images.float().mean(1, keepdim=True).round().to(torch.uint8)


def read_scenes(backbone: nn.Module, sets: ReportSets, batch_size: int, preprocess: Preprocess, skipped: dict):
    """Patch tokens of the layers on scenes with twins; fills `skipped`, returns tensors and facts."""
    refusal = refused(backbone, fitted(backbone, sets.scenes["test"].images[:1]), preprocess, return_layers=True)
    wanted = {} if refusal else {"return_layers": True}
    facts, found, indices = {"layers": ["last"]}, {}, None
    if refusal:
        skipped["binding at other layers"] = f"last patch tokens only: {refusal}"
    for split in SPLITS:
        images, rows = fitted(backbone, sets.scenes[split].images), []
        for tokens in run_frozen(backbone, images, batch_size, preprocess, **wanted):
            if not refusal and indices is None:
                indices, line = chosen_layers(tokens)
                facts["layers"] = indices
                if line:
                    skipped["binding at other layers"] = line
            rows.append(scene_tokens(tokens, indices).detach().cpu())
        found[f"scenes_{split}_layers"] = kept(f"scenes {split}", torch.cat(rows, dim=1))
    return found, facts


def read_singles(backbone: nn.Module, sets: ReportSets, batch_size: int, preprocess: Preprocess, skipped: dict):
    """Attention of the last block and its keys on images with one object; fills `skipped`, returns tensors and facts.

    Without keys over all tokens, the last patch tokens stand in for them.
    """
    images = fitted(backbone, sets.singles["test"].images)
    refusal = refused(backbone, images[:1], preprocess, return_attention=[-1])
    if refusal:
        skipped["attention Jaccard"] = refusal
    facts, attention, keys, catcher = {}, [], [], KeyCatcher(backbone)
    try:
        wanted = {} if refusal else {"return_attention": [-1]}
        for tokens in run_frozen(backbone, images, batch_size, preprocess, **wanted):
            if not refusal:
                maps = query_map(tokens.attentions[-1], tokens.num_prefix_tokens)
                attention.append(maps.unflatten(-1, tuple(tokens.grid)))
            caught = catcher.keys(tokens)
            keys.append(tokens.patch_tokens if caught is None else caught)
            facts = {"grid": list(tokens.grid), "discovery_on": "patch tokens" if caught is None else "attention keys"}
    finally:
        catcher.close()
    found = {"singles_keys": kept("keys", torch.cat(keys))}
    if attention:
        found["singles_attention"] = kept("attention", torch.cat(attention))
    return found, facts


def scene_tokens(tokens: object, indices: list[int] | None) -> Tensor:
    """(L, B, T, D): the chosen layers without prefix tokens, or the last patch tokens where indices is None."""
    if indices is None:
        return tokens.patch_tokens[None]
    prefix = tokens.num_prefix_tokens
    one_resolution = tokens.layers[indices[0]].shape[1] == prefix + tokens.patch_tokens.shape[1]
    return torch.stack([tokens.layers[index][:, prefix if one_resolution else 0 :] for index in indices])


def read_network(
    backbone: nn.Module, sets: ReportSets, preprocess: Preprocess = None, batch_size: int | None = None
) -> Readings:
    """Send the images of a card through a frozen network (see as_backbone) once.

    batch_size: default 256 on a GPU; 16 on a CPU, where more no longer fits its caches.
    Raises ValueError for features that are not finite. What does not apply is named in `skipped`, not raised.
    """
    if batch_size is None:
        batch_size = 256 if device_of(backbone, torch.device("cpu")).type == "cuda" else 16
    sample = fitted(backbone, sets.scenes["train"].images[: 16 if sets.img_size <= 96 else 4])
    facts = {"img_size": sets.img_size, **network_cost(backbone, sample, preprocess)}
    skipped: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    first = next(iter(run_frozen(backbone, sample[:1], 1, preprocess)))
    patches = first.patch_tokens.shape[1]
    facts["width"] = first.cls_token.shape[1]
    require(facts["width"] >= 1, f"{name_of(backbone)}: expected features of width 1 or more, got none")
    tensors |= read_labelled(backbone, "photos", sets.photos, batch_size, preprocess, tokens=patches > 0)
    tensors |= read_labelled(backbone, "garments", sets.garments, batch_size, preprocess, tokens=False)
    if patches == 0:
        line = f"{name_of(backbone)} gives one vector an image, no patch tokens"
        skipped |= dict.fromkeys(("attentive probe", "attention Jaccard", "LOST and TokenCut", "binding"), line)
        return Readings(tensors, skipped, facts)
    for read in (read_singles, read_scenes):
        found, more = read(backbone, sets, batch_size, preprocess, skipped)
        tensors, facts = tensors | found, facts | more
    if patches < LEAST_PATCHES:
        del tensors["singles_keys"]
        skipped["LOST and TokenCut"] = f"a grid of {first.grid[0]} x {first.grid[1]} patches is too coarse"
    return Readings(tensors, skipped, facts)
