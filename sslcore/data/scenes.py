"""Composed scenes: photo cut-outs or drawn shapes on a ground, with instance masks, twins, captions and motion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.data.backgrounds import BACKGROUNDS
from sslcore.data.captions import describe
from sslcore.data.embedded import stamp_ids, stamp_table
from sslcore.data.imageset import ImageSet
from sslcore.data.painting import Recipe, paint_scenes
from sslcore.data.placement import CELLS
from sslcore.data.scene_draws import draws_in_pieces, scenes_at_once
from sslcore.data.shapes import PALETTE, SHAPES, packed_shapes
from sslcore.data.sprites import packed_stamps
from sslcore.validate import check_rank, require, unknown

PLURALS = {"cross": "crosses"}


@dataclass(repr=False)
class Scenes(ImageSet):
    """An ImageSet of composed scenes.

    masks: 0 = background, k + 1 = object of slot k. Videos (frames > 1): video (N, T, 3, H, W) uint8 and video_masks
    (N, T, H, W) uint8; images and masks are the first frame.

    extras, with K slots: objects (N, K) source number, -1 = empty slot; boxes (N, K, 4) x0, y0, x1, y1 of the visible
    part in pixels, upper ends exclusive, zeros if nothing is seen; centres (N, K, 2) row and column in pixels; visible
    (N, K) share of the object that is not hidden; twin_of (N, K) slot of the twin or -1; presence (N, sources) bool;
    for shapes colours (N, K, 2), equal ones with `combinations`, and fills (N, K); for videos velocity (N, K, 2) in
    pixels a frame.
    """

    video: Tensor | None = None
    video_masks: Tensor | None = None


def _captions(made: dict[str, Tensor], source: str, side: int) -> list[str]:
    objects = made["objects"].cpu()
    places = (made["centres"] / side).cpu().tolist()
    if source == "stamps":
        names = {i: (record["noun"], record["plural"]) for i, record in enumerate(stamp_table())}
        return describe(objects.tolist(), places, names)
    inks = len(PALETTE)
    tones, names = list(PALETTE), {}
    for number, shape in enumerate(SHAPES):
        for a in range(inks):
            for b in range(inks):
                paint_words = tones[a] if a == b else f"{tones[a]} and {tones[b]}"
                plural = PLURALS.get(shape, shape + "s")
                names[(number * inks + a) * inks + b] = (f"{paint_words} {shape}", f"{paint_words} {plural}")
    colours = made["colours"].cpu()
    kinds = torch.where(objects >= 0, (objects * inks + colours[..., 0]) * inks + colours[..., 1], -1)
    return describe(kinds.tolist(), places, names)


def _check(num: int, img_size: int, objects: tuple[int, int], twin_pairs: int, size_range: tuple[float, float]) -> None:
    require(num >= 1, f"num: expected at least 1, got {num}")
    require(8 <= img_size <= 1024, f"img_size: expected 8 to 1024 pixels, got {img_size}")
    low, high = objects
    require(
        0 <= low <= high <= 64 and high >= 1, f"num_objects: expected a count or (fewest, most) up to 64, got {objects}"
    )
    require(0 <= 2 * twin_pairs <= low, f"twin_pairs: {twin_pairs} pairs need {2 * twin_pairs} objects, got {low}")
    small, large = size_range
    require(0 < small <= large <= 1, f"size_range: expected 0 < small <= large <= 1, got {size_range}")
    require(
        small * img_size >= 4, f"size_range: objects of {small * img_size:.1f} pixels cannot be told apart; at least 4"
    )


def _marked(combinations: Tensor, source: str) -> Tensor:
    """The shapes that have a colour in the table of allowed combinations."""
    check_rank("combinations", combinations, 2)
    shape = (len(SHAPES), len(PALETTE))
    got = (tuple(combinations.shape), combinations.dtype, source)
    good = got == (shape, torch.bool, "shapes")
    require(good, f"combinations: expected {shape} bool with source 'shapes', got {got}")
    require(bool(combinations.any()), "combinations: expected at least one that is allowed, got none")
    return combinations.any(dim=1).nonzero()[:, 0].cpu()


def compose_scenes(
    num: int,
    *,
    img_size: int = 64,
    num_objects: int | tuple[int, int] = 4,
    source: str = "stamps",
    twin_pairs: int = 0,
    size_range: tuple[float, float] = (0.25, 0.45),
    max_overlap: float = 0.1,
    background: str = "noise",
    relight: bool = True,
    split: str = "train",
    frames: int = 1,
    rotation: float = 30.0,
    speed: float = 0.03,
    spin: float = 4.0,
    captions: bool = True,
    combinations: Tensor | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Scenes:
    """Paint `num` scenes; the same arguments give the same scenes, and a longer run starts with a shorter one.

    Args:
        num: scenes. img_size: side in pixels.
        num_objects: how many, or (fewest, most) drawn for each scene.
        source: "stamps" (photo cut-outs) or "shapes" (drawn, two colours of a shared palette).
        twin_pairs: pairs of objects with the same photo, size, angle, flip and light in two places. Others differ.
        size_range: longer side of an object as a fraction of the picture's side.
        max_overlap: largest share of an object that others may hide, on the first frame (see `placement.place`).
        background: "noise" (smooth coloured noise), "gradient", "texture", "mixed" or "plain".
        relight: brightness and tint drawn for each object.
        split: "train" (190 photos), "test" (68 others) or "all"; all shapes belong to every split.
        frames: more than 1 gives videos: constant velocity up to `speed` sides a frame, turning up to `spin` degrees.
        rotation: objects are turned by up to this many degrees either way.
        captions: make sentences too.
        combinations: (8 shapes, 6 colours) bool, in the order of SHAPES and PALETTE; shapes are then of one colour,
            only those marked occur, a shape's colours equally often. A shape without a mark is left out.
        seed: non-negative. device: where to paint. Draws are made on the CPU, so a GPU paints the same scenes.

    Returns:
        Scenes. With one object a scene, labels are source numbers; otherwise labels is None. classes: source names.

    Raises:
        ValueError: unknown names or values out of range.
    """
    objects = (num_objects, num_objects) if isinstance(num_objects, int) else (num_objects[0], num_objects[1])
    _check(num, img_size, objects, twin_pairs, size_range)
    require(0 <= max_overlap <= 1, f"max_overlap: expected 0 to 1, got {max_overlap}")
    require(frames >= 1, f"frames: expected at least 1, got {frames}")
    require(seed >= 0, f"seed: expected a non-negative integer, got {seed}")
    require(
        min(rotation, speed, spin) >= 0,
        f"rotation, speed, spin: expected none below 0, got {rotation}, {speed}, {spin}",
    )
    if background not in BACKGROUNDS:
        unknown("background", background, BACKGROUNDS)
    if source not in ("stamps", "shapes"):
        unknown("source", source, ("stamps", "shapes"))
    names = [record["name"] for record in stamp_table()] if source == "stamps" else list(SHAPES)
    ids = stamp_ids(split)  # also rejects an unknown split
    ids = ids if source == "stamps" else torch.arange(len(SHAPES))
    if combinations is not None:
        ids = _marked(combinations, source)
    smallest, largest = size_range[0] * img_size, size_range[1] * img_size
    atlas = packed_stamps if source == "stamps" else packed_shapes
    sprites = atlas(
        min(smallest, size_range[0] * CELLS), max(largest, size_range[1] * CELLS), str(torch.device(device))
    )
    recipe = Recipe(img_size, source, ids, len(names), max_overlap, background, frames, speed, spin, combinations)
    draws = draws_in_pieces(
        num,
        scenes_at_once(img_size, device),
        seed,
        device,
        sources=len(ids),
        objects=objects,
        twin_pairs=twin_pairs,
        size_range=size_range,
        rotation=rotation,
        relight=relight,
    )
    parts = [paint_scenes(picked, ground, sprites, recipe) for picked, ground in draws]
    made = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    sentences = _captions(made, source, img_size) if captions else None
    return Scenes(
        name=f"scenes-{source}",
        split=split,
        labels=made["objects"][:, 0].clone() if objects == (1, 1) else None,
        classes=names,
        captions=sentences,
        **{key: made.pop(key, None) for key in ("images", "masks", "video", "video_masks")},
        extras=made,
    )
