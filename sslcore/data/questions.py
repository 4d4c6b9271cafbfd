"""Questions about composed shapes, with answers: count, colour, shape, relation; and a split by combination."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.data.scenes import Scenes
from sslcore.data.shapes import PALETTE, SHAPES
from sslcore.validate import require, unknown

KINDS = ("count", "colour", "shape", "relation")
COLOURS, NUMBERS = tuple(PALETTE), ("zero", "one", "two", "three", "four", "five", "six")
RELATIONS = {"left of": (1, 1), "right of": (1, -1), "above": (0, 1), "below": (0, -1)}  # axis, side
ANSWERS = (*COLOURS, *SHAPES, *NUMBERS, "yes", "no")
_GRAMMAR = "how many things what colour shape is the thing left right of above below".split()
VOCABULARY = ("", *dict.fromkeys((*_GRAMMAR, *COLOURS, *SHAPES)))  # word 0 fills up short questions
LENGTH = 7  # words of the longest question: is the disc left of the square


@dataclass(frozen=True)
class Questions:
    """Q questions. image (Q,): number of the scene. kind (Q,): index into KINDS. tokens (Q, LENGTH): words as indices
    into VOCABULARY. answers (Q,): indices into ANSWERS. asked (Q, K) bool: the objects that the answer rests on."""

    image: Tensor
    kind: Tensor
    tokens: Tensor
    answers: Tensor
    asked: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: Tensor) -> Questions:
        """The chosen questions. index: (M,) long or (Q,) bool."""
        return Questions(*(value[index] for value in vars(self).values()))

    def text(self, number: int) -> str:
        """One question and its answer in words."""
        words = " ".join(VOCABULARY[token] for token in self.tokens[number].tolist() if token)
        return f"{words}? {ANSWERS[int(self.answers[number])]}"


def split_combinations(
    shapes: Sequence[str], colours: Sequence[str] = COLOURS, held_out: int = 1
) -> tuple[Tensor, Tensor]:
    """Two tables (8 shapes, 6 colours) bool for compose_scenes: combinations to learn from, and those held out.

    Each of `shapes` loses `held_out` of `colours`, neighbouring shapes different ones, so every shape and every colour
    is still seen. Raises ValueError for unknown names, or if a shape or a colour would never be seen.
    """
    for name in shapes:
        if name not in SHAPES:
            unknown("shape", name, SHAPES)
    for name in colours:
        if name not in COLOURS:
            unknown("colour", name, COLOURS)
    require(held_out >= 0, f"held_out: expected at least 0, got {held_out}")
    every = torch.zeros(len(SHAPES), len(COLOURS), dtype=torch.bool)
    unseen = every.clone()
    for s, shape in enumerate(shapes):
        for c, colour in enumerate(colours):
            every[SHAPES.index(shape), COLOURS.index(colour)] = True
            unseen[SHAPES.index(shape), COLOURS.index(colour)] = (c - s * held_out) % len(colours) < held_out
    seen = every & ~unseen
    whole = torch.equal(seen.any(1), every.any(1)) and torch.equal(seen.any(0), every.any(0)) and bool(every.any())
    require(whole, f"held_out: {held_out} of {len(colours)} colours leave a shape or a colour of {shapes} unseen")
    return seen, unseen


def _sentences(shapes: list[int], colours: list[int], places: list[list[float]], draw: random.Random) -> dict:
    """{kind: (words, answer, slots asked about)} of one scene; kinds that cannot be asked are missing."""
    slots, found = [k for k, shape in enumerate(shapes) if shape >= 0], {}
    groups = {c: [k for k in slots if colours[k] == c] for c in range(len(COLOURS))}
    number = draw.choice(sorted({len(group) for group in groups.values()}))
    colour = draw.choice([c for c, group in groups.items() if len(group) == number])
    found["count"] = (f"how many {COLOURS[colour]} things", NUMBERS[number], groups[colour])
    names = [shapes[k] for k in slots]
    single = [k for k in slots if names.count(shapes[k]) == 1]
    if single:
        k = draw.choice(single)
        found["colour"] = (f"what colour is the {SHAPES[shapes[k]]}", COLOURS[colours[k]], [k])
    alone = [group[0] for group in groups.values() if len(group) == 1]
    if alone:
        k = draw.choice(alone)
        found["shape"] = (f"what shape is the {COLOURS[colours[k]]} thing", SHAPES[shapes[k]], [k])
    if len(single) >= 2:
        one, two = draw.sample(single, 2)
        gap = [places[two][axis] - places[one][axis] for axis in (0, 1)]  # rows down, columns to the right
        axis = int(abs(gap[1]) >= abs(gap[0]))
        words, (_, side) = draw.choice([item for item in RELATIONS.items() if item[1][0] == axis])
        truth = "yes" if side * gap[axis] > 0 else "no"
        found["relation"] = (f"is the {SHAPES[shapes[one]]} {words} the {SHAPES[shapes[two]]}", truth, [one, two])
    return found


def ask(scenes: Scenes, kinds: Sequence[str] = KINDS, seed: int = 0) -> Questions:
    """One question of each kind about each scene, where it has one clear answer.

    scenes: drawn shapes of one colour (compose_scenes with `combinations`), up to six objects.
    kinds: count "how many red things"; colour "what colour is the disc", of a shape that occurs once; shape "what shape
        is the red thing", of a colour that occurs once; relation "is the disc left of the square", along the axis on
        which the two lie further apart. Counts are drawn before colours, so that small ones do not drown the others.
    Questions come scene by scene; the same seed asks the same. Raises ValueError for other scenes or unknown kinds.
    """
    for kind in kinds:
        if kind not in KINDS:
            unknown("kind of question", kind, KINDS)
    extras = scenes.extras
    good = "colours" in extras and torch.equal(extras["colours"][..., 0], extras["colours"][..., 1])
    require(good, "scenes: expected drawn shapes of one colour (compose_scenes with combinations)")
    require(extras["objects"].shape[1] < len(NUMBERS), f"scenes: expected at most {len(NUMBERS) - 1} objects")
    word = {name: index for index, name in enumerate(VOCABULARY)}
    answer = {name: index for index, name in enumerate(ANSWERS)}
    draw, rows = random.Random(seed), []
    objects, colours, centres = (extras[name].tolist() for name in ("objects", "colours", "centres"))
    for n, shapes in enumerate(objects):
        found = _sentences(shapes, [pair[0] for pair in colours[n]], centres[n], draw)
        for kind in kinds:
            if kind in found:
                words, truth, slots = found[kind]
                tokens = [word[name] for name in words.split()]
                asked = [k in slots for k in range(len(shapes))]
                rows.append((n, KINDS.index(kind), tokens + [0] * (LENGTH - len(tokens)), answer[truth], asked))
    require(bool(rows), "scenes: no question of these kinds has one clear answer")
    return Questions(*(torch.tensor(column) for column in zip(*rows, strict=True)))
