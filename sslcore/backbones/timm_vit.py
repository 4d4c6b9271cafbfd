"""Weights of a timm ViT in our VisionTransformer: same output, plus masks, dropping and attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sslcore.backbones.timm_bridge import timm_preprocess
from sslcore.backbones.vit import VisionTransformer
from sslcore.validate import require


def load_timm_vit(name_or_model: str | nn.Module, **timm_options: object) -> VisionTransformer:
    """Our VisionTransformer with the shape and the weights of a timm ViT, in the same train/eval mode;
    `preprocess` comes from its data config.

    name_or_model: a timm.models.VisionTransformer, or a name for timm.create_model(name, **timm_options).
    Raises ValueError for architectures with parts we do not have (query-key norm, pre-norm, other activations,
    a norm behind the pooling): use timm_backbone for those.
    """
    import timm

    model = timm.create_model(name_or_model, **timm_options) if isinstance(name_or_model, str) else name_or_model
    require(
        isinstance(model, timm.models.VisionTransformer),
        f"name_or_model: expected a timm VisionTransformer, got {type(model).__name__}; use timm_backbone",
    )
    block, projection = model.blocks[0], model.patch_embed.proj
    side = projection.kernel_size[0]
    require(projection.kernel_size == (side, side), f"patch size: expected a square, got {projection.kernel_size}")
    gamma = getattr(block.ls1, "gamma", None)
    network = VisionTransformer(
        img_size=tuple(model.patch_embed.img_size),
        patch_size=side,
        in_chans=projection.in_channels,
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / model.embed_dim,
        qkv_bias=block.attn.qkv.bias is not None,
        class_token=model.cls_token is not None,
        num_registers=0 if model.reg_token is None else model.reg_token.shape[1],
        pos_embed="none" if model.pos_embed is None else "learned",
        init_values=None if gamma is None else 1.0,
        norm_eps=block.norm1.eps,
    )
    network.preprocess = timm_preprocess(model)
    return network.load_timm(model).train(model.training)


def load_timm_weights(network: VisionTransformer, source: nn.Module | Mapping[str, Tensor]) -> None:
    """Copy timm weights into `network` in place. The classification head is left behind.

    timm may give class and register tokens positions of their own; they are constants, so they are added to the
    tokens once here. Raises ValueError naming the parameters that are missing, unexpected or of another shape, and
    for a model whose activation or norm epsilon differs (not visible in a state dict).
    """
    if isinstance(source, nn.Module):
        _check_arithmetic(network, source)
        source = source.state_dict()
    state = {name: tensor.detach() for name, tensor in source.items() if not name.startswith("head")}
    if network.pos_embed_kind in ("sincos", "rope") and "pos_embed" in state:
        raise ValueError(f'pos_embed: the weights carry a learned table, the network has "{network.pos_embed_kind}"')
    prefix, positions = network.num_prefix_tokens, state.get("pos_embed")
    num_patches = network.reference_grid[0] * network.reference_grid[1]
    if prefix and positions is not None and positions.shape[1] == num_patches + prefix:
        tokens = torch.cat([state[name] for name in ("cls_token", "reg_token") if name in state], dim=1)
        tokens = tokens + positions[:, :prefix]
        classes = int(network.cls_token is not None)
        if classes:
            state["cls_token"] = tokens[:, :1]
        if network.num_registers:
            state["reg_token"] = tokens[:, classes:]
        state["pos_embed"] = positions[:, prefix:]
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys() - {"mask_token"})
    unexpected = sorted(state.keys() - own.keys())
    odd = [f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
           for name in own.keys() & state.keys() if state[name].shape != own[name].shape]
    require(
        not (missing or unexpected or odd),
        "timm weights do not fit this VisionTransformer: "
        f"missing {missing[:5]}, unexpected {unexpected[:5]}, other shape {sorted(odd)[:5]}",
    )
    network.load_state_dict(state | {"mask_token": own["mask_token"]})


def _check_arithmetic(network: VisionTransformer, model: nn.Module) -> None:
    block = model.blocks[0]
    activation = block.mlp.act
    require(
        isinstance(activation, nn.GELU) and activation.approximate == "none",
        f"activation: expected exact GELU, got {activation}; use timm_backbone",
    )
    require(
        block.norm1.eps == network.norm.eps,
        f"norm_eps: the timm model has {block.norm1.eps}, the network {network.norm.eps}",
    )
