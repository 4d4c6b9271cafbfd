"""Inputs with known answers for the probe tests: planted object codes, a tiny backbone, painted scenes."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sslcore.probes.same_object.pairs import Pairs, candidate_pairs, cap_pairs

GRID = (4, 8)


def tokens_with_codes(num_scenes: int, seed: int, rotate: bool = False, nuisance: int = 10) -> tuple[Tensor, Pairs]:
    """Scenes of 4 objects and 32 tokens: one-hot class (3) + instance code (6, fresh in each scene) + nuisance.

    Returns features (1, N, 32, D) and balanced foreground pairs.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.randint(1, 5, (num_scenes, 32), generator=generator)
    kinds = torch.randint(3, (num_scenes, 5), generator=generator)
    codes = nn.functional.normalize(normal(num_scenes, 5, 6), dim=-1) * 1.5
    token_class = nn.functional.one_hot(kinds.gather(1, labels), 3).float()
    token_code = codes.gather(1, labels[..., None].expand(-1, -1, 6))
    parts = [token_class, token_code, 1.5 * normal(num_scenes, 32, nuisance)]
    features = torch.cat(parts, -1)
    features = features + 0.24 * normal(*features.shape)
    if rotate:  # the same rotation for every split
        basis = torch.randn(features.shape[-1], features.shape[-1], generator=torch.Generator().manual_seed(99))
        features = features @ torch.linalg.qr(basis)[0]
    pairs = candidate_pairs(labels, torch.ones(num_scenes, 32), GRID, stratum="foreground")
    return features[None], cap_pairs(pairs, 150, generator)


class TinyTransformer(nn.Module):
    """Two blocks of softmax attention behind the Tokens interface, small enough to check by hand."""

    def __init__(self, patch_size: int = 8, width: int = 12, heads: int = 2, depth: int = 2, prefix: int = 1):
        super().__init__()
        self.patch_size, self.embed_dim, self.num_prefix_tokens, self.heads = patch_size, width, prefix, heads
        self.embed = nn.Conv2d(3, width, patch_size, patch_size)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.qkv = nn.ModuleList(nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)}) for _ in range(depth))
        self.drop = nn.Dropout(0.5)

    def preprocess(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def forward(self, images: Tensor, return_layers: bool = False, return_attention: bool = False) -> SimpleNamespace:
        grid = tuple(side // self.patch_size for side in images.shape[-2:])
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = self.drop(torch.cat([self.prefix.expand(len(patches), -1, -1), patches], 1))
        layers, attentions = [x], []
        for block in self.qkv:
            query, key, value = block["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
            x = x + (weights @ value).transpose(1, 2).flatten(2)
            layers.append(x)
            attentions.append(weights)
        patch_tokens = x[:, self.num_prefix_tokens :]
        return SimpleNamespace(
            cls_token=x[:, 0] if self.num_prefix_tokens else patch_tokens.mean(1),
            patch_tokens=patch_tokens,
            grid=grid,
            layers=layers if return_layers else None,
            attentions=attentions if return_attention else None,
            num_prefix_tokens=self.num_prefix_tokens,
        )


class NoAttention(TinyTransformer):
    """Like a convolutional net: layers, but no attention to show."""

    def forward(self, images: Tensor, **wanted: bool) -> SimpleNamespace:
        tokens = super().forward(images)
        tokens.attentions = None
        return tokens


def painted_scenes(num: int, seed: int, size: int = 32) -> SimpleNamespace:
    """Two pairs of twin rectangles (12 x 8 or 8 x 12) at free places without overlap, each pair of one colour."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    masks = torch.zeros(num, size, size, dtype=torch.uint8)
    images = torch.randint(90, 166, (num, 3, size, size), generator=generator).float()
    colours = torch.randint(0, 256, (num, 2, 3), generator=generator).float()
    plain = images.clone()
    for scene in range(num):
        shapes = [(12, 8) if draw(2) else (8, 12) for _ in range(2)]
        placed, tries = 0, 0
        while placed < 4:
            height, width = shapes[placed // 2]
            tries += 1
            if tries % 50 == 0:  # the free room may have run out: start this scene again
                masks[scene], images[scene], placed = 0, plain[scene], 0
            # Whole patches of 4: a cut patch would show how its object lies on the grid, and its twin lies otherwise.
            top, left = 4 * draw((size - height) // 4 + 1), 4 * draw((size - width) // 4 + 1)
            if bool(masks[scene, top : top + height, left : left + width].any()):
                continue
            placed += 1
            masks[scene, top : top + height, left : left + width] = placed
            images[scene, :, top : top + height, left : left + width] = colours[scene, (placed - 1) // 2][:, None, None]
    twin_of = torch.tensor([1, 0, 3, 2]).repeat(num, 1)
    return SimpleNamespace(images=images.byte(), masks=masks, extras={"twin_of": twin_of})


def coded_scenes(num: int, seed: int, codes: str = "fresh", rotate: bool = True) -> SimpleNamespace:
    """tokens_with_codes with everything told: features (1, N, 32, 19), labels and kinds (N, 32), twin_of, pairs.

    codes: "fresh" draws an instance code for every object of every scene; "slots" gives object k of each scene the same
    code everywhere, in random order, as a network that numbers its objects would.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.randint(1, 5, (num, 32), generator=generator)
    kinds = torch.randint(3, (num, 5), generator=generator)
    instance = nn.functional.normalize(normal(num, 5, 6), dim=-1) * 1.5
    if codes == "slots":
        order = torch.rand(num, 4, generator=generator).argsort(1)
        instance = torch.cat([torch.zeros(num, 1, 6), 1.5 * torch.eye(6)[order]], 1)
    token_class = nn.functional.one_hot(kinds.gather(1, labels), 3).float()
    token_code = instance.gather(1, labels[..., None].expand(-1, -1, 6))
    x = torch.cat([token_class, token_code, 1.5 * normal(num, 32, 10)], -1)
    x = x + 0.24 * normal(*x.shape)
    if rotate:
        basis = torch.randn(19, 19, generator=torch.Generator().manual_seed(99))
        x = x @ torch.linalg.qr(basis)[0]
    pairs = candidate_pairs(labels, torch.ones(num, 32), GRID, stratum="foreground")
    chosen = cap_pairs(pairs, 150, generator)
    return SimpleNamespace(features=x[None], labels=labels, kinds=kinds.gather(1, labels), objects=kinds, pairs=chosen)
