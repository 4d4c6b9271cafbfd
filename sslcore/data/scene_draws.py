"""The random choices behind a batch of scenes: what, how large, which way round, in which light, twins, motion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcore.data.backgrounds import background_draws

CHUNK = 512  # scenes that share one generator: the first n scenes are the same however many are asked for


@dataclass
class SceneDraws:
    """Everything random about the objects of B scenes with K slots; (B, K) unless said."""

    present: Tensor
    source: Tensor  # rank among the sources on offer
    twin_of: Tensor  # slot of the twin, or -1
    size: Tensor  # fraction of the side
    angle: Tensor  # radians
    flip: Tensor
    light: Tensor  # (B, K, 3) factor a channel
    variant: Tensor  # uniform numbers (B, K, 4) for fills, colours and aspect
    spot: Tensor  # uniform numbers (B, K, 3) for the place
    heading: Tensor  # (B, K, 2) step a frame, in [-1, 1] times the greatest speed
    spin: Tensor  # turn a frame, in [-1, 1] times the greatest


def chunk_generator(seed: int, chunk: int) -> torch.Generator:
    """CPU generator for one chunk of one seed; numpy's SeedSequence keeps neighbouring pairs apart."""
    state = int(np.random.SeedSequence((seed, chunk)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def draw_scenes(
    generator: torch.Generator,
    *,
    sources: int,
    objects: tuple[int, int],
    twin_pairs: int,
    size_range: tuple[float, float],
    rotation: float,
    relight: bool,
    count: int = CHUNK,
) -> SceneDraws:
    """Choices for `count` scenes. Objects differ within a scene (as far as `sources` allows) except for twins.

    objects: (fewest, most); rotation in degrees either way.
    """
    low, slots = objects

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    number = low + (uniform() * (slots - low + 1)).long().clamp_max(slots - low)
    order = uniform(max(sources, slots)).argsort(dim=1)[:, :slots] % sources
    size = size_range[0] + (size_range[1] - size_range[0]) * uniform(slots)
    angle = (2 * uniform(slots) - 1) * rotation * math.pi / 180
    flip = uniform(slots) < 0.5
    brightness, tint, variant = uniform(slots, 1), uniform(slots, 3), uniform(slots, 4)
    light = (0.75 + 0.45 * brightness) * (0.94 + 0.12 * tint) if relight else torch.ones(count, slots, 3)
    direction, pace, spin = 2 * math.pi * uniform(slots), 0.3 + 0.7 * uniform(slots), 2 * uniform(slots) - 1
    heading = torch.stack([direction.sin(), direction.cos()], dim=-1) * pace[..., None]
    spot = uniform(slots, 3)

    # Slots 0 and 1 are the first pair, 2 and 3 the second, ...; the follower copies all of its leader but the place.
    leader, partner = torch.arange(slots), torch.full((slots,), -1)
    for pair in range(twin_pairs):
        leader[2 * pair + 1] = 2 * pair
        partner[2 * pair], partner[2 * pair + 1] = 2 * pair + 1, 2 * pair
    # Shuffling the slots keeps twins from always being the first ones drawn; absent slots are shuffled with them.
    shuffle = uniform(slots).argsort(dim=1)
    where = shuffle.argsort(dim=1)
    mate = partner[shuffle]
    twin_of = torch.where(mate >= 0, where.gather(1, mate.clamp_min(0)), -1)
    copied = leader[shuffle]

    def follow(values: Tensor) -> Tensor:
        index = copied if values.ndim == 2 else copied[..., None].expand(-1, -1, values.shape[-1])
        return values.gather(1, index)

    return SceneDraws(
        present=shuffle < number[:, None],
        twin_of=twin_of,
        **{"source": follow(order), "size": follow(size), "angle": follow(angle), "flip": follow(flip)},
        **{"light": follow(light), "variant": follow(variant), "spin": follow(spin)},
        spot=spot,
        heading=heading,
    )


def scenes_at_once(img_size: int, device: str | torch.device) -> int:
    """Small pieces stay in a CPU's cache; a GPU waits for orders rather than for pixels and gets many scenes."""
    pixels = 2**18 if torch.device(device).type == "cpu" else 2**24
    return max(1, pixels // img_size**2)


def draws_in_pieces(
    num: int, piece: int, seed: int, device: str | torch.device, **settings: Any
) -> Iterator[tuple[SceneDraws, dict[str, Tensor]]]:
    """Choices and grounds of `num` scenes on `device`, up to `piece` at a time; the pieces say nothing about the draws.

    settings: those of `draw_scenes`.
    """
    together = max(CHUNK, piece // CHUNK * CHUNK)
    for start in range(0, num, together):
        drawn = []
        for first in range(start, min(num, start + together), CHUNK):
            generator = chunk_generator(seed, first // CHUNK)
            drawn.append((vars(draw_scenes(generator, **settings)), background_draws(CHUNK, generator)))
        picked, ground = (
            {key: torch.cat([both[which][key] for both in drawn])[: num - start].to(device) for key in drawn[0][which]}
            for which in (0, 1)
        )
        for at in range(0, len(picked["source"]), piece):
            here = slice(at, at + piece)
            some = SceneDraws(**{key: value[here] for key, value in picked.items()})
            yield some, {key: value[here] for key, value in ground.items()}
