"""From drawn choices to pixels: place the objects, paint them over the ground, keep the masks. Batched over scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcore.data.backgrounds import paint
from sslcore.data.placement import place
from sslcore.data.scene_draws import SceneDraws
from sslcore.data.shapes import FILLS, PALETTE, palette
from sslcore.data.sprites import Poses, Sprites, draw

SHAPE_ASPECT = 0.6  # drawn shapes are squeezed to between this share of their height and all of it


@dataclass(frozen=True)
class Recipe:
    """What all scenes of one call share. ids: source number of each rank; known: sources of any split."""

    img_size: int
    source: str
    ids: Tensor
    known: int
    max_overlap: float
    background: str
    frames: int
    speed: float
    spin: float
    combinations: Tensor | None = None  # shape x colour: which one colour a shape may have; None: two of any


def _inks(ids: Tensor, picked: SceneDraws, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes only: fill (B, K), two palette colours (B, K, 2), different unless combinations rule, aspect (B, K)."""
    one = (picked.variant[..., 0] * len(PALETTE)).long()
    step = 1 + (picked.variant[..., 1] * (len(PALETTE) - 1)).long()
    fills = (picked.variant[..., 2] * len(FILLS)).long()
    aspect = SHAPE_ASPECT + (1 - SHAPE_ASPECT) * picked.variant[..., 3]
    if recipe.source == "stamps":
        aspect = torch.ones_like(aspect)
    if recipe.combinations is not None:
        allowed = recipe.combinations.to(ids.device)[ids]  # (B, K, colours)
        rank = (picked.variant[..., 0] * allowed.sum(dim=-1)).long()
        one = allowed.int().argsort(dim=-1, descending=True, stable=True).gather(-1, rank[..., None])[..., 0]
        return fills, torch.stack([one, one], dim=-1), aspect
    return fills, torch.stack([one, (one + step) % len(PALETTE)], dim=-1), aspect


def _lit(layer: Tensor, light: Tensor, inks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Premultiplied colour (B, 3, H, W) and alpha (B, 1, H, W) of a sampled sprite in its own light (B, 3)."""
    alpha = layer[:, -1:]
    if inks is None:
        colour = layer[:, :3]
    else:
        first, second = inks[:, 0, :, None, None], inks[:, 1, :, None, None]
        colour = first * (alpha - layer[:, :1]) + second * layer[:, :1]
    return (colour * light[:, :, None, None]).minimum(alpha), alpha


def boxes_of(masks: Tensor, slots: int) -> Tensor:
    """(B, K, 4) int64 boxes x0, y0, x1, y1 of ids 1..K in (B, H, W) masks; zeros where an id does not occur."""
    boxes = []
    for slot in range(slots):
        here = masks == slot + 1
        columns, rows = here.any(dim=1).long(), here.any(dim=2).long()
        ends = [columns.argmax(1), rows.argmax(1)]
        ends += [line.shape[1] - line.flip(1).argmax(1) for line in (columns, rows)]
        boxes.append(torch.stack(ends, dim=1) * columns.amax(dim=1, keepdim=True))
    return torch.stack(boxes, dim=1)


def _paint_frame(
    sprites: Sprites, poses: list[Poses], picked: SceneDraws, inks: Tensor | None, canvas: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Objects over the ground, later slots on top: images uint8, masks uint8, pixels of each whole object (B, K)."""
    side = canvas.shape[-1]
    masks = torch.zeros(len(canvas), side, side, dtype=torch.uint8, device=canvas.device)
    whole = []
    for k, pose in enumerate(poses):
        colour, alpha = _lit(draw(sprites, pose, side), picked.light[:, k], None if inks is None else inks[:, k])
        here = picked.present[:, k, None, None]
        canvas = torch.where(here[:, None], colour + (1 - alpha) * canvas, canvas)
        solid = (alpha[:, 0] > 0.5) & here
        masks = masks.masked_fill(solid, k + 1)
        whole.append(solid.sum(dim=(1, 2)))
    return (canvas * 255).round().clamp(0, 255).to(torch.uint8), masks, torch.stack(whole, dim=1)


def paint_scenes(picked: SceneDraws, ground: dict[str, Tensor], sprites: Sprites, recipe: Recipe) -> dict[str, Tensor]:
    """Render B scenes. Every value of the result has B in front; the names are those of `Scenes` and its extras."""
    side, slots = recipe.img_size, picked.size.shape[1]
    ids = recipe.ids.to(picked.source.device)[picked.source]
    fills, colours, aspect = _inks(ids, picked, recipe)
    number = ids * len(FILLS) + fills if recipe.source == "shapes" else ids
    inks = palette(colours.device)[colours] if recipe.source == "shapes" else None
    nowhere = torch.zeros(len(ids), 2, device=ids.device)
    poses = [
        Poses(number[:, k], nowhere, picked.size[:, k] * side, picked.angle[:, k], picked.flip[:, k], aspect[:, k])
        for k in range(slots)
    ]
    centres = place(sprites, poses, picked.spot, side, recipe.max_overlap, picked.present)
    canvas = paint(recipe.background, ground, side)
    velocity = torch.zeros_like(centres)
    if recipe.frames > 1:
        half = torch.stack([pose.half_extents(sprites) for pose in poses], dim=1).clamp_max(side / 2)
        last = centres + picked.heading * recipe.speed * side * (recipe.frames - 1)
        # Slow down whatever would leave the frame: the path stays straight and ends inside.
        velocity = (last.maximum(half).minimum(side - half) - centres) / (recipe.frames - 1)
    turn = torch.deg2rad(picked.spin * recipe.spin)
    shots = []
    for frame in range(recipe.frames):
        moved = [
            replace(pose, centre=centres[:, k] + frame * velocity[:, k], angle=pose.angle + frame * turn[:, k])
            for k, pose in enumerate(poses)
        ]
        shots.append(_paint_frame(sprites, moved, picked, inks, canvas))
    images, masks, whole = shots[0]
    seen = torch.stack([(masks == k + 1).sum(dim=(1, 2)) for k in range(slots)], dim=1)
    objects = torch.where(picked.present, ids, -1)
    # Empty slots write into one column too many, which is cut off again.
    presence = torch.zeros(len(ids), recipe.known + 1, dtype=torch.bool, device=ids.device)
    presence = presence.scatter(1, objects.remainder(recipe.known + 1), True)[:, :-1]
    made = {"images": images, "masks": masks, "objects": objects, "presence": presence, "centres": centres}
    made |= {"boxes": boxes_of(masks, slots), "visible": seen / whole.clamp_min(1)}
    made |= {"twin_of": torch.where(picked.present, picked.twin_of, -1)}
    if recipe.source == "shapes":
        made |= {"colours": colours, "fills": fills}
    if recipe.frames > 1:
        made |= {"video": torch.stack([shot[0] for shot in shots], dim=1), "velocity": velocity}
        made |= {"video_masks": torch.stack([shot[1] for shot in shots], dim=1)}
    return made
