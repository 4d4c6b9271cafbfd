"""A question head on stored tokens.

Claims: with tokens that name what is there it learns to answer; blind tokens leave it at the answers' frequencies; the
seed decides; grades are means over the questions of a kind; bad input is refused.
"""

from __future__ import annotations

import pytest
import torch

from sslcore.data import compose_scenes
from sslcore.data.questions import KINDS, ask, split_combinations
from sslcore.training.question_head import fit_question_head, grade_answers


@pytest.fixture(scope="module")
def asked():
    """Tokens that say which shape and colour lies in each of 4 x 4 cells, and questions."""
    table, _ = split_combinations(("square", "ring", "cross"), ("red", "blue", "white"), held_out=0)
    scenes = compose_scenes(
        400, img_size=32, source="shapes", num_objects=2, combinations=table, captions=False, max_overlap=0.0
    )
    tokens = torch.zeros(400, 4, 4, 14)
    for k in range(2):
        cell = (scenes.extras["centres"][:, k] / 8).long().clamp(0, 3)
        for index in (scenes.extras["objects"][:, k], 8 + scenes.extras["colours"][:, k, 0]):
            tokens[torch.arange(400), cell[:, 0], cell[:, 1], index] = 1.0
    return tokens.flatten(1, 2), ask(scenes, kinds=("count", "colour"))


def test_it_learns_from_tokens_that_tell(asked):
    tokens, questions = asked
    head = fit_question_head(tokens, questions, steps=250, lr=1e-2, width=32)
    grade = grade_answers(head, tokens, questions)
    blind = grade_answers(fit_question_head(0 * tokens, questions, steps=60, width=32), 0 * tokens, questions)
    assert grade["colour"] > 0.9 > 0.6 > blind["colour"] and grade["accuracy"] > 0.85
    assert set(grade) == {"accuracy", "count", "colour", "ECE"} and 0 <= grade["ECE"] < 0.2
    kind = questions.kind == KINDS.index("colour")
    alone = grade_answers(head, tokens, questions.take(kind))
    assert alone["accuracy"] == pytest.approx(grade["colour"]) and not head.training


def test_the_seed_decides(asked):
    tokens, questions = asked
    torch.manual_seed(5)
    one, same, other = (
        fit_question_head(tokens, questions, steps=3, labels=50, seed=seed, width=8).answer[0].weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_bad_input_is_refused(asked):
    tokens, questions = asked
    for wrong, message in ((tokens[0], "3 dim"), (tokens[:, :15], "square grid"), (tokens[:10], "about scene 399")):
        with pytest.raises(ValueError, match=message):
            fit_question_head(wrong, questions)
    for labels in (0, len(questions) + 1):
        with pytest.raises(ValueError, match="labels: expected 1 to"):
            fit_question_head(tokens, questions, labels=labels)
    with pytest.raises(TypeError, match="tokens"):
        grade_answers(None, tokens.long(), questions)
