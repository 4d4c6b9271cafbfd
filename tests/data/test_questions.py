"""Questions about composed shapes.

Claims: every answer is what the words say, worked out anew from text and scene; questions are unambiguous; answers are
spread; the split hides combinations and no shape or colour; the seed decides; bad input is refused.
"""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.data import compose_scenes
from sslcore.data.questions import ANSWERS, COLOURS, KINDS, LENGTH, NUMBERS, VOCABULARY, ask, split_combinations
from sslcore.data.shapes import SHAPES

FOUR = ("square", "triangle", "cross", "ring")


def some_scenes(num=60, seed=0, objects=(1, 4), table=None):
    table = split_combinations(FOUR, held_out=0)[0] if table is None else table
    return compose_scenes(
        num, img_size=32, source="shapes", num_objects=objects, combinations=table, captions=False, seed=seed
    )


def truth(words, things):
    """Answer by reading the words. things: [(shape, colour, row, column)]."""
    if match := re.fullmatch(r"how many (\w+) things", words):
        return NUMBERS[sum(colour == match[1] for _, colour, _, _ in things)]
    if match := re.fullmatch(r"what colour is the (\w+)", words):
        (answer,) = [colour for shape, colour, _, _ in things if shape == match[1]]
        return answer
    if match := re.fullmatch(r"what shape is the (\w+) thing", words):
        (answer,) = [shape for shape, colour, _, _ in things if colour == match[1]]
        return answer
    match = re.fullmatch(r"is the (\w+) (left of|right of|above|below) the (\w+)", words)
    (first,), (second,) = ([thing[2:] for thing in things if thing[0] == match[g]] for g in (1, 3))
    holds = {"left of": first[1] < second[1], "right of": first[1] > second[1], "above": first[0] < second[0],
             "below": first[0] > second[0]}  # fmt: skip
    return "yes" if holds[match[2]] else "no"


@given(seed=st.integers(0, 999))
@settings(max_examples=10)
def test_answers_are_true_and_unambiguous(seed):
    scenes = some_scenes(30, seed)
    questions = ask(scenes, seed=seed)
    for q in range(len(questions)):
        n = int(questions.image[q])
        there = [k for k, shape in enumerate(scenes.extras["objects"][n].tolist()) if shape >= 0]
        things = {
            k: (SHAPES[scenes.extras["objects"][n, k]], COLOURS[scenes.extras["colours"][n, k, 0]],
                *scenes.extras["centres"][n, k].tolist()) for k in there
        }  # fmt: skip
        words, answer = questions.text(q).split("? ")
        assert truth(words, list(things.values())) == answer
        asked = [k for k in range(questions.asked.shape[1]) if questions.asked[q, k]]
        assert set(asked) <= set(there)
        named = [k for k, thing in things.items() if set(thing[:2]) & set(words.split())]
        assert asked == named


def test_shapes_and_answers_are_spread():
    questions = ask(some_scenes(400, objects=(3, 3)))
    assert questions.tokens.shape == (len(questions), LENGTH) and questions.tokens.max() < len(VOCABULARY)
    assert torch.equal(questions.kind.bincount(), questions.kind.bincount().clamp(min=300, max=400))
    assert len(set(VOCABULARY)) == len(VOCABULARY) and len(set(ANSWERS)) == len(ANSWERS)
    share = {}
    for k, kind in enumerate(KINDS):
        counts = questions.answers[questions.kind == k].bincount(minlength=len(ANSWERS)).float()
        share[kind] = {ANSWERS[i]: float(counts[i] / counts.sum()) for i in counts.nonzero()[:, 0].tolist()}
    assert set(share["colour"]) == set(COLOURS) and max(share["colour"].values()) < 0.3
    assert set(share["shape"]) == set(FOUR) and max(share["shape"].values()) < 0.35
    assert 0.4 < share["relation"]["yes"] < 0.6 and max(share["count"].values()) < 0.55


def test_the_seed_decides_and_kinds_can_be_chosen():
    scenes = some_scenes()
    one, same, other = ask(scenes, seed=1), ask(scenes, seed=1), ask(scenes, seed=2)
    assert torch.equal(one.tokens, same.tokens) and not torch.equal(one.tokens, other.tokens)
    only = ask(scenes, kinds=("relation",))
    assert set(only.kind.tolist()) == {KINDS.index("relation")}
    part = only.take(torch.tensor([1, 0]))
    assert part.text(0) == only.text(1) and len(part) == 2


@pytest.mark.parametrize(("shapes", "held_out"), [(FOUR, 1), (FOUR, 2), (SHAPES, 1), (("disc", "heart"), 3)])
def test_split_hides_combinations_only(shapes, held_out):
    seen, unseen = split_combinations(shapes, held_out=held_out)
    assert not (seen & unseen).any() and (unseen.sum(1) == held_out).sum() == len(shapes)
    assert {SHAPES[i] for i in seen.any(1).nonzero()[:, 0].tolist()} == set(shapes)
    assert seen.any(0).all()
    scenes = some_scenes(100, table=seen, objects=min(3, len(shapes)))
    objects, colours = scenes.extras["objects"], scenes.extras["colours"][..., 0]
    assert not unseen[objects, colours].any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown shape 'blob'"):
        split_combinations(("blob",))
    with pytest.raises(ValueError, match="unknown colour 'pink'"):
        split_combinations(FOUR, ("pink",))
    for held_out in (-1, 6):
        with pytest.raises(ValueError, match="held_out"):
            split_combinations(FOUR, held_out=held_out)
    with pytest.raises(ValueError, match="unknown kind of question 'why'"):
        ask(some_scenes(4), kinds=("why",))
    with pytest.raises(ValueError, match="drawn shapes of one colour"):
        ask(compose_scenes(4, num_objects=2, captions=False))
    with pytest.raises(ValueError, match="drawn shapes of one colour"):
        ask(compose_scenes(4, source="shapes", num_objects=2, captions=False))
    with pytest.raises(ValueError, match="no question of these kinds"):
        ask(some_scenes(4, objects=1), kinds=("relation",))
