"""Scenes of composite objects: a body with two or three parts, and masks of the objects and of their parts."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.data.backgrounds import BACKGROUNDS, paint
from sslcore.data.painting import boxes_of
from sslcore.data.placement import place
from sslcore.data.scene_draws import SceneDraws, draws_in_pieces, scenes_at_once
from sslcore.data.scenes import Scenes
from sslcore.data.shapes import PALETTE, outline, palette
from sslcore.data.sprites import SIDE, Poses, Sprites, draw, pack
from sslcore.validate import require, unknown

PARTS = 3  # most parts of a body


class Build(NamedTuple):
    """A type: outline and half width of body and parts, where parts sit (x, y; y down), colours of body and parts."""

    body: str
    body_size: float
    part: str
    part_size: float
    places: tuple[tuple[float, float], ...]
    colours: tuple[str, str]


BELOW, ABOVE = ((-0.5, 0.62), (0.5, 0.62)), ((-0.5, -0.62), (0.5, -0.62))
BESIDE, AROUND = ((-0.74, 0.0), (0.74, 0.0)), ((0.0, -0.7), (-0.62, 0.5), (0.62, 0.5))
TYPES = {
    "cart": Build("square", 0.66, "disc", 0.36, BELOW, ("red", "yellow")),
    "robot": Build("square", 0.6, "square", 0.3, BESIDE, ("red", "white")),
    "cat": Build("disc", 0.66, "triangle", 0.38, ABOVE, ("green", "yellow")),
    "satellite": Build("disc", 0.5, "square", 0.34, BESIDE, ("green", "white")),
    "flower": Build("disc", 0.52, "disc", 0.34, AROUND, ("blue", "yellow")),
    "crystal": Build("hexagon", 0.66, "triangle", 0.4, AROUND, ("blue", "white")),
}
TYPE_NAMES = tuple(TYPES)


def composite_pixels() -> Tensor:
    """(types, PARTS + 2, 96, 96): coverage of the body, of each part, and of all of it. Parts lie on the body."""
    axis = (torch.arange(4 * SIDE) + 0.5) / (2 * SIDE) - 1  # four samples a texel each way
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    tiles = []
    for build in TYPES.values():
        parts = torch.zeros(PARTS, *x.shape, dtype=torch.bool)
        for number, (right, down) in enumerate(build.places):
            here = outline(build.part, (x - right) / build.part_size, (y - down) / build.part_size)
            parts[number] = here & ~parts.any(dim=0)
        body = outline(build.body, x / build.body_size, y / build.body_size) & ~parts.any(dim=0)
        fine = torch.cat([body[None], parts, (body | parts.any(dim=0))[None]]).float()
        tiles.append(fine.unfold(1, 4, 4).unfold(2, 4, 4).mean(dim=(3, 4)))
    return torch.stack(tiles)


@functools.lru_cache(maxsize=8)
def packed_composites(smallest: float, largest: float, device: str) -> Sprites:
    """All types, ready for sizes between the two."""
    return pack(composite_pixels().to(device), smallest, largest).to(device)


def _inks(picked: SceneDraws, colours: str) -> Tensor:
    """(B, K, PARTS + 1) palette numbers: a body's colour, and one other colour for all of its parts."""
    if colours == "own":
        own = [[list(PALETTE).index(ink) for ink in build.colours] for build in TYPES.values()]
        table = torch.tensor([[body, *[part] * PARTS] for body, part in own], device=picked.source.device)
        return table[picked.source]
    body = (picked.variant[..., 0] * len(PALETTE)).long()
    part = (body + 1 + (picked.variant[..., 1] * (len(PALETTE) - 1)).long()) % len(PALETTE)
    return torch.cat([body[..., None], part[..., None].expand(*part.shape, PARTS)], dim=-1)


def _paint(
    picked: SceneDraws, ground: dict[str, Tensor], sprites: Sprites, side: int, overlap: float, looks: tuple[str, str]
) -> dict[str, Tensor]:
    slots = picked.size.shape[1]
    nowhere = torch.zeros(len(picked.size), 2, device=picked.size.device)
    one = torch.ones_like(picked.size[:, 0])
    poses = [
        Poses(picked.source[:, k], nowhere, picked.size[:, k] * side, picked.angle[:, k], picked.flip[:, k], one)
        for k in range(slots)
    ]
    centres = place(sprites, poses, picked.spot, side, overlap, picked.present)
    canvas, numbers = paint(looks[0], ground, side), _inks(picked, looks[1])
    inks = palette(numbers.device)[numbers] * picked.light[:, :, None]  # (B, K, PARTS + 1, 3)
    masks = torch.zeros(len(canvas), side, side, dtype=torch.uint8, device=canvas.device)
    parts, whole = torch.zeros_like(masks), []
    for k, pose in enumerate(poses):
        layer = draw(sprites, Poses(pose.sprite, centres[:, k], pose.size, pose.angle, pose.flip, pose.aspect), side)
        cover, alpha = layer[:, :-1], layer[:, -1:]
        colour = torch.einsum("bphw,bpc->bchw", cover, inks[:, k]).minimum(alpha)
        here = picked.present[:, k, None, None]
        canvas = torch.where(here[:, None], colour + (1 - alpha) * canvas, canvas)
        solid = (alpha[:, 0] > 0.5) & here
        masks = masks.masked_fill(solid, k + 1)
        parts = torch.where(solid, (cover.argmax(dim=1) + 1).to(torch.uint8), parts)
        whole.append(solid.sum(dim=(1, 2)))
    objects = torch.where(picked.present, picked.source, -1)
    presence = torch.zeros(len(objects), len(TYPES) + 1, dtype=torch.bool, device=objects.device)
    presence = presence.scatter(1, objects.remainder(len(TYPES) + 1), True)[:, :-1]
    seen = torch.stack([(masks == k + 1).sum(dim=(1, 2)) for k in range(slots)], dim=1)
    return {
        "images": (canvas * 255).round().clamp(0, 255).to(torch.uint8),
        "masks": masks,
        "parts": parts,
        "objects": objects,
        "presence": presence,
        "centres": centres,
        "boxes": boxes_of(masks, slots),
        "visible": seen / torch.stack(whole, dim=1).clamp_min(1),
        "colours": numbers[..., :2],
    }


def compose_composites(
    num: int,
    *,
    img_size: int = 64,
    num_objects: int | tuple[int, int] = 2,
    size_range: tuple[float, float] = (0.4, 0.55),
    max_overlap: float = 0.0,
    background: str = "noise",
    colours: str = "own",
    rotation: float = 15.0,
    relight: bool = True,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Scenes:
    """`num` scenes of objects made of a body and two or three parts in another colour; the types are TYPES.

    The objects of a scene differ in type. colours: "own" gives each type its two colours; three body colours and two
    part colours make six types, so that neither colour alone tells the type. "free" draws both for each object, and
    then colours say nothing about types. num_objects: how many, or (fewest, most). size_range: longer side of a whole
    object, as a fraction of the picture's side. The other arguments are those of `compose_scenes`. The same arguments
    give the same scenes, and a longer run starts with a shorter one.

    Returns Scenes: masks hold the objects (0 = background, k + 1 = slot k); extras["parts"] (N, H, W) uint8 says what
    of its object a pixel shows: 0 background, 1 body, 2 to 4 a part. Further extras: objects (N, K) type numbers, -1 =
    empty slot; presence (N, types) bool; centres, boxes, visible as in Scenes; colours (N, K, 2) of body and parts.
    labels are types where there is one object a scene, else None.
    Raises ValueError for unknown names or values out of range.
    """
    low, high = (num_objects, num_objects) if isinstance(num_objects, int) else num_objects
    require(num >= 1, f"num: expected at least 1, got {num}")
    require(8 <= img_size <= 1024, f"img_size: expected 8 to 1024 pixels, got {img_size}")
    fits = 0 <= low <= high <= len(TYPES) and high >= 1
    require(fits, f"num_objects: expected a count or (fewest, most) up to {len(TYPES)}, got {num_objects}")
    small, large = size_range
    require(0 < small <= large <= 1, f"size_range: expected 0 < small <= large <= 1, got {size_range}")
    require(small * img_size >= 8, f"size_range: parts of {small * img_size:.1f} pixel objects vanish; at least 8")
    require(0 <= max_overlap <= 1, f"max_overlap: expected 0 to 1, got {max_overlap}")
    require(seed >= 0 and rotation >= 0, f"seed, rotation: expected none below 0, got {seed}, {rotation}")
    if background not in BACKGROUNDS:
        unknown("background", background, BACKGROUNDS)
    if colours not in ("own", "free"):
        unknown("colours", colours, ("own", "free"))
    sprites = packed_composites(small * img_size / 2, max(large * img_size, large * 32), str(torch.device(device)))
    draws = draws_in_pieces(
        num, scenes_at_once(img_size, device), seed, device, sources=len(TYPES), objects=(low, high), twin_pairs=0,
        size_range=size_range, rotation=rotation, relight=relight,
    )  # fmt: skip
    look = (background, colours)
    pieces = [_paint(picked, ground, sprites, img_size, max_overlap, look) for picked, ground in draws]
    made = {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}
    return Scenes(
        name="composites",
        split="train",
        labels=made["objects"][:, 0].clone() if (low, high) == (1, 1) else None,
        classes=list(TYPES),
        images=made.pop("images"),
        masks=made.pop("masks"),
        extras=made,
    )
