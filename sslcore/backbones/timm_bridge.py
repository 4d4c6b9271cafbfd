"""Any timm model behind the same interface as our own backbones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcore.backbones.tokens import Tokens, refuse_attention, wanted_layers
from sslcore.validate import check_float, check_images, check_rank, require

# Softmax over all tokens of the image, kept as it is until it meets the values. Window, linear, talking-head and
# class-only attention are absent on purpose: their weights are not a map over the whole image.
EXACT_ATTENTION = ("Attention", "AttentionRope", "EvaAttention")


@dataclass(frozen=True)
class Standardize:
    """uint8 images, or floats in [0, 1], to what a timm model was trained on: (x - mean) / std per channel, float32.

    Sizes are left alone. One-channel images use the channel means of mean and std.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        check_images("images", images)
        pixels = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
        mean, std = (torch.tensor(value, device=images.device).view(1, -1, 1, 1) for value in (self.mean, self.std))
        if images.shape[1] == 1:
            mean, std = mean.mean(dim=1, keepdim=True), std.mean(dim=1, keepdim=True)
        return (pixels - mean) / std


def timm_preprocess(model: nn.Module) -> Standardize:
    """The normalisation named in a timm model's data config."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    return Standardize(tuple(config["mean"]), tuple(config["std"]))


class TimmBackbone(nn.Module):
    """A timm model without its classifier, read out as Tokens.

    patch_tokens come from forward_features: a feature map is flattened row by row, a token sequence loses its prefix
    tokens. Where timm puts the last norm behind the pooling (fc_norm), it is applied to the tokens here, so they are
    always normed. cls_token is the class token, or the mean of the patch tokens. Prefix tokens after the first
    (registers, distillation token) are register_tokens.
    """

    def __init__(self, model: nn.Module, in_chans: int = 3):
        super().__init__()
        self.model, self.in_chans = model, in_chans
        self.name = type(model).__name__
        self.embed_dim = model.num_features
        self.patch_size = model.feature_info[-1]["reduction"]
        self.num_prefix_tokens = getattr(model, "num_prefix_tokens", 0)
        registers = getattr(model, "num_reg_tokens", 0)
        self.has_class_token = self.num_prefix_tokens > registers
        self.preprocess = timm_preprocess(model)

    def reset_parameters(self) -> None:
        """The timm model's own first weights, where it has a function that draws them; else its layers'."""
        draw = getattr(self.model, "init_weights", None)
        if callable(draw):
            draw()

    def forward(
        self, x: Tensor, return_layers: bool = False, return_attention: bool | Sequence[int] = False
    ) -> Tokens:
        """(B, C, H, W) float images -> Tokens; sizes as the timm model accepts them.

        return_layers: block outputs for transformers with one resolution; otherwise stage maps (B, h_l * w_l, D_l)
        from a second pass through forward_intermediates.
        return_attention: True or block indices, for transformers with plain softmax attention over all tokens;
        those blocks run timm's explicit path for this call. ValueError for every other net.
        """
        check_rank("x", x, 4)
        check_float("x", x)
        require(
            x.shape[0] >= 1 and x.shape[1] == self.in_chans,
            f"x: expected (B >= 1, {self.in_chans}, H, W), got shape {tuple(x.shape)}",
        )
        blocks = list(getattr(self.model, "blocks", []))
        wanted = self._attention_layers(blocks, return_attention)
        layers: list[Tensor] = []
        attentions: dict[int, Tensor] = {}
        with ExitStack() as hooks:
            for index in wanted:
                hooks.enter_context(_recorded_attention(blocks[index].attn, attentions, index))
            if return_layers and blocks:
                hooks.enter_context(_recorded_layers(blocks, layers))
            features = self.model.forward_features(x)
        require(isinstance(features, Tensor), f"{self.name}: forward_features gives no single tensor")
        if features.ndim == 4:
            if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
                features = features.permute(0, 3, 1, 2)
            grid, tokens = (features.shape[2], features.shape[3]), features.flatten(2).transpose(1, 2)
        else:
            grid, tokens = self._grid(x, features), self._normed(features)
        prefix = self.num_prefix_tokens
        length = tokens.shape[1]
        for weights in attentions.values():
            require(
                weights.shape[-2:] == (length, length),
                f"return_attention: {self.name} attends over {tuple(weights.shape[-2:])}, not all {length} tokens",
            )
        one_resolution = features.ndim == 3 and layers and all(layer.shape[1] == length for layer in layers)
        if return_layers and not one_resolution:
            layers = [_flat(stage) for stage in self.model.forward_intermediates(x, intermediates_only=True)]
        patch_tokens, first_register = tokens[:, prefix:], int(self.has_class_token)
        return Tokens(
            cls_token=tokens[:, 0] if self.has_class_token else patch_tokens.mean(dim=1),
            patch_tokens=patch_tokens,
            grid=grid,
            register_tokens=tokens[:, first_register:prefix] if prefix > first_register else None,
            layers=layers if return_layers else None,
            attentions=[attentions[index] for index in wanted] if wanted else None,
            num_prefix_tokens=prefix,
        )

    def _attention_layers(self, blocks: list[nn.Module], return_attention: bool | Sequence[int]) -> list[int]:
        exact = blocks and all(
            type(getattr(block, "attn", None)).__name__ in EXACT_ATTENTION and hasattr(block.attn, "attn_drop")
            for block in blocks
        )
        if not exact:
            refuse_attention(return_attention, self.name)
        return wanted_layers(return_attention, len(blocks)) if exact else []

    def _grid(self, x: Tensor, features: Tensor) -> tuple[int, int]:
        grid = (math.ceil(x.shape[2] / self.patch_size), math.ceil(x.shape[3] / self.patch_size))
        patches = features.shape[1] - self.num_prefix_tokens
        require(
            grid[0] * grid[1] == patches,
            f"{self.name}: expected {grid[0]} x {grid[1]} patch tokens, forward_features gives {patches}",
        )
        return grid

    def _normed(self, tokens: Tensor) -> Tensor:
        norm, pooled_norm = getattr(self.model, "norm", None), getattr(self.model, "fc_norm", None)
        late = isinstance(norm, nn.Identity) and isinstance(pooled_norm, nn.Module)
        return pooled_norm(tokens) if late else tokens


def timm_backbone(name: str, pretrained: bool = False, **options: object) -> TimmBackbone:
    """timm.create_model(name, pretrained, num_classes=0, **options) as a backbone; `preprocess` from its data config.

    pretrained=True downloads weights. Raises ValueError for a name timm does not know, with the nearest known ones.
    """
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        import difflib

        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ValueError(f"unknown timm model {name!r}; nearest known: {', '.join(near) or 'see timm.list_models()'}")
    model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    return TimmBackbone(model, in_chans=options.get("in_chans", 3))


@contextmanager
def _recorded_attention(attention: nn.Module, record: dict[int, Tensor], index: int) -> Iterator[None]:
    """Run one attention module without its fused kernel and keep the softmax weights that reach the dropout."""
    fused, attention.fused_attn = attention.fused_attn, False

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        record[index] = inputs[0].float()

    handle = attention.attn_drop.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        attention.fused_attn = fused


@contextmanager
def _recorded_layers(blocks: list[nn.Module], layers: list[Tensor]) -> Iterator[None]:
    """Keep the input of the first block and the output of every block."""
    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layers.append(output)

    handles = [blocks[0].register_forward_pre_hook(lambda _module, inputs: layers.append(inputs[0]))]
    handles += [block.register_forward_hook(keep) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _flat(stage: Tensor) -> Tensor:
    return stage.flatten(2).transpose(1, 2)
