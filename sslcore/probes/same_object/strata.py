"""Kinds of pairs: twins, same class, touching, near: where does a same-object probe succeed, and where does it fail?"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.probes.same_object.labels import token_labels
from sslcore.probes.same_object.metrics import image_auroc
from sslcore.probes.same_object.pairs import Pairs, match_pairs
from sslcore.validate import check_rank, require


def touching_objects(masks: Tensor) -> Tensor:
    """Which objects share a border: masks (B, H, W) ids, 0 = ground -> bool (B, K + 1, K + 1), symmetric, no self."""
    check_rank("masks", masks, 3)
    count = int(masks.max()) + 1
    masks = masks.long()
    found = torch.zeros(len(masks), count * count, dtype=torch.bool, device=masks.device)
    for a, b in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])):
        meet = (a != b) & (a > 0) & (b > 0)
        code = torch.where(meet, a * count + b, 0).flatten(1)
        found.scatter_(1, code, True)
    table = found.view(-1, count, count)
    table = table | table.transpose(1, 2)
    table[:, 0] = table[:, :, 0] = False
    return table


def pair_strata(
    pairs: Pairs,
    masks: Tensor,
    patch_size: int,
    twin_of: Tensor | None = None,
    classes: Tensor | None = None,
    edges: tuple[float, ...] = (2.0, 4.0),
) -> dict[str, Tensor]:
    """Bool (P,) for every stratum; the pairs are pairs of tokens on objects of these masks.

    A pair of tokens on one object belongs to every stratum of kinds of *different* pairs (it is what they are told
    from), so that each stratum asks one question:
      twins            different pairs lie on an object and its twin (twin_of (B, K), -1 = none)
      same_class       different pairs lie on two objects of one class that are no twins (classes (B, K))
      other_class      different pairs lie on two objects of two classes
      touching         both objects share a border; a same pair's object has some neighbour that it touches
      separated        the two objects share no border; a same pair's object touches nobody
      distance a-b     distance of the tokens, in tokens, in [a, b)
      interior/border  both tokens are pure (>= 99 % one id) / at least one is not
    """
    labels, purity = token_labels(masks, patch_size)
    a, b = labels[pairs.image, pairs.first], labels[pairs.image, pairs.second]
    require(bool(((a > 0) & (b > 0)).all()), "pairs: expected tokens on objects only, got ground tokens")
    require(bool(((a == b) == pairs.same).all()), "pairs: their answers do not fit the masks")
    same, found = pairs.same, {}
    twins = torch.zeros_like(same)
    if twin_of is not None:
        twins = (twin_of.to(a)[pairs.image, a - 1] == b - 1) & ~same
        found["twins"] = same | twins
    if classes is not None:
        alike = classes.to(a)[pairs.image, a - 1] == classes.to(a)[pairs.image, b - 1]
        found["same_class"] = same | (alike & ~twins)
        found["other_class"] = same | ~alike
    touch = touching_objects(masks)
    meets = torch.where(same, touch[pairs.image, a].any(-1), touch[pairs.image, a, b])
    found["touching"], found["separated"] = meets, ~meets
    width = pairs.grid[1]
    rows = pairs.first // width - pairs.second // width
    columns = pairs.first % width - pairs.second % width
    distance = (rows.square() + columns.square()).double().sqrt()
    limits = (0.0, *edges, float("inf"))
    for low, high in zip(limits[:-1], limits[1:], strict=True):
        name = f"distance {low:g}-{high:g}" if high < float("inf") else f"distance {low:g}+"
        found[name] = (distance >= low) & (distance < high)
    pure = purity >= 0.99
    found["interior"] = pure[pairs.image, pairs.first] & pure[pairs.image, pairs.second]
    found["border"] = ~found["interior"]
    return found


def strata_auroc(
    logits: Tensor, pairs: Pairs, strata: dict[str, Tensor], match: str = "position", seed: int = 0
) -> dict[str, tuple[float, tuple[float, float], int]]:
    """{stratum: (AUROC, 95 % interval over images, pairs)} of logits (P,); every stratum is matched on its own, so that
    position answers in none of them. Strata without pairs of both kinds are left out."""
    found = {}
    places = torch.arange(len(pairs), device=logits.device)
    for name, member in strata.items():
        chosen = pairs.take(member)
        number = Pairs(places[member], chosen.first, chosen.second, chosen.same, chosen.grid)
        matched = match_pairs(number, match, torch.Generator().manual_seed(seed))
        if bool(matched.same.any()) and not bool(matched.same.all()):
            value, interval = image_auroc(logits[matched.image], matched.same, pairs.image[matched.image])
            found[name] = (value, interval, len(matched))
    return found
