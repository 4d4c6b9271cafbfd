"""Any network behind the interface that the probes read, and what one image costs it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslcore.backbones import TimmBackbone, Tokens, create_backbone
from sslcore.probes.frozen import device_of, frozen, prepare
from sslcore.validate import check_finite, require

Preprocess = Callable[[Tensor], Tensor] | None


class PlainNetwork(nn.Module):
    """A module that returns one float tensor, as Tokens: (B, D) vectors, (B, N, D) tokens or (B, C, H, W) maps.

    Of a token sequence that is one longer than a square, the first is the class token. Vectors come with no patch
    tokens at all: patch_tokens (B, 0, D), grid (0, 0).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.name = model, type(model).__name__

    def forward(self, x: Tensor, return_layers: bool = False, return_attention: object = False) -> Tokens:
        require(return_attention is False, f"{self.name} shows no attention")
        require(return_layers is False, f"{self.name} shows no layers")
        output = self.model(x)
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        expected = f"{self.name}: expected Tokens, (B, D), (B, N, D) or (B, C, H, W) for {len(x)} images, got {shape}"
        require(isinstance(output, Tensor) and output.ndim in (2, 3, 4) and len(output) == len(x), expected)
        require(output.is_floating_point() and output.numel() > 0, f"{expected} of {output.dtype}")
        if output.ndim == 2:
            return Tokens(output, output[:, None][:, :0], (0, 0))
        if output.ndim == 4:
            patches = output.flatten(2).transpose(1, 2)
            return Tokens(patches.mean(1), patches, tuple(output.shape[2:]))
        side = math.isqrt(output.shape[1])
        prefix = output.shape[1] - side**2
        square = side >= 1 and prefix in (0, 1)
        require(square, f"{self.name}: {output.shape[1]} tokens are no square grid, with or without a class token")
        patches = output[:, prefix:]
        return Tokens(output[:, 0] if prefix else patches.mean(1), patches, (side, side), num_prefix_tokens=prefix)


def is_timm(model: nn.Module) -> bool:
    """Whether a module is a timm model: it has a pretrained configuration and can stop before its classifier."""
    return hasattr(model, "pretrained_cfg") and hasattr(model, "forward_features")


def as_backbone(model: nn.Module | str, img_size: int | None = None, preprocess: Preprocess = None) -> nn.Module:
    """A network that returns Tokens: course backbones as they are, timm models and plain modules wrapped.

    model: a module, or "timm/<name>" for one with pretrained weights.
    One black image is sent through to see what comes back. Raises ValueError for an output that fits no interface
    or is not finite, TypeError for something that is no network.
    """
    if isinstance(model, str):
        known = f"model: expected a network or timm/<name>, got {model!r}; for a checkpoint: sslcore.bench.named_report"
        require(model.startswith("timm/"), known)
        model = create_backbone(model, pretrained=True)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module or a name, got {type(model).__name__}")
    if is_timm(model):
        model = TimmBackbone(model)
    size = image_size(model, img_size)
    channels = getattr(model, "in_chans", 3)
    image = torch.zeros(1, channels, size, size, dtype=torch.uint8)
    with frozen(model):
        first = model(prepare(model, image, preprocess))
    if not (hasattr(first, "cls_token") and hasattr(first, "patch_tokens") and hasattr(first, "grid")):
        model = PlainNetwork(model)
        with frozen(model):
            first = model(prepare(model, image, preprocess))
    vectors, patches = first.cls_token, first.patch_tokens
    fits = vectors.ndim == 2 and patches.ndim == 3 and patches.shape[1] == first.grid[0] * first.grid[1]
    got = f"{tuple(vectors.shape)}, {tuple(patches.shape)} and {tuple(first.grid)}"
    require(fits, f"{name_of(model)}: expected cls_token (B, D), patch_tokens (B, h * w, D) and grid (h, w), got {got}")
    check_finite(f"features of {name_of(model)}", vectors)
    check_finite(f"features of {name_of(model)}", patches)
    return model


def name_of(model: nn.Module) -> str:
    """The wrapped model's name, else the class's."""
    name = getattr(model, "name", None)
    return name if isinstance(name, str) else type(model).__name__


def image_size(model: nn.Module, img_size: int | None = None) -> int:
    """The side the network reads: what was asked for, or what the network says it was made for.

    Raises ValueError where neither gives a size.
    """
    if img_size is not None:
        return int(img_size)
    if hasattr(model, "reference_grid"):
        return int(model.reference_grid[0] * model.patch_size)
    inner = model.model if isinstance(model, TimmBackbone) else model
    if is_timm(inner):
        made = getattr(getattr(inner, "patch_embed", None), "img_size", None)
        return int(made[0] if made else inner.pretrained_cfg["input_size"][-1])
    raise ValueError(f"img_size: {name_of(model)} does not say what size it reads; pass img_size=...")


@torch.no_grad()
def network_cost(backbone: nn.Module, images: Tensor, preprocess: Preprocess = None, repeats: int = 3) -> dict:
    """{"params": number of weights, "gflops": 1e9 operations an image, "ms": milliseconds an image}.

    images: a batch, uint8 or float, as the backbone reads them. Operations are the matrix products and convolutions of
    one image (a multiplication and an addition are two), counted while it runs. ms: median over `repeats` passes of
    the batch, on the threads there are.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with frozen(backbone):
        batch = prepare(backbone, images, preprocess)
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:  # the fused kernels are not counted everywhere
            backbone(batch[:1])
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            backbone(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
    weights = sum(parameter.numel() for parameter in backbone.parameters())
    milliseconds = 1000 * statistics.median(seconds) / len(batch)
    device = device_of(backbone, batch.device)
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    cost = {"params": weights, "gflops": counter.get_total_flops() / 1e9, "ms": milliseconds}
    return {**cost, "timed_on": f"{device.type}{threads}"}
