"""Grammar and truth of the sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslcore.data.captions import counted, relation, sentence, with_article

PLACES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("noun", "told"),
    [
        ("apple", "an apple"),
        ("frog", "a frog"),
        ("European bear", "a European bear"),
        ("ear of corn", "an ear of corn"),
        ("Indian blackbuck", "an Indian blackbuck"),
        ("hot air balloon", "a hot air balloon"),
    ],
)
def test_articles(noun, told):
    assert with_article(noun) == told


def test_counting():
    assert counted("mouse", "mice", 1) == "a mouse"
    assert counted("mouse", "mice", 2) == "two mice"
    assert counted("mouse", "mice", 12) == "12 mice"


def test_sentences():
    frog, apples, key, saw = (
        ("frog", "frogs", [(0.5, 0.1)]),
        ("apple", "apples", [(0.4, 0.8), (0.6, 0.7)]),
        ("key", "keys", [(0.1, 0.4)]),
        ("saw", "saws", [(0.9, 0.4)]),
    )
    assert sentence([]) == "nothing"
    assert sentence([apples]) == "two apples"
    assert sentence([frog, apples]) == "a frog left of two apples"
    assert sentence([apples, frog]) == "two apples right of a frog"
    assert sentence([key, saw]) == "a key above a saw"
    assert sentence([frog, apples, key]) == "a frog left of two apples, with a key"
    assert sentence([frog, apples, key, saw]) == "a frog left of two apples, with a key and a saw"
    assert sentence([frog, ("owl", "owls", [(0.5, 0.1)])]) == "a frog and an owl"


@given(PLACES, PLACES)
def test_relations_are_opposites(first, second):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: None}
    assert relation(second, first) == opposite[relation(first, second)]


@given(PLACES, PLACES)
def test_a_relation_holds_for_every_pair(first, second):
    told = relation(first, second)
    checks = {
        "left of": lambda a, b: a[1] < b[1],
        "right of": lambda a, b: a[1] > b[1],
        "above": lambda a, b: a[0] < b[0],
        "below": lambda a, b: a[0] > b[0],
    }
    assert told is None or all(checks[told](a, b) for a in first for b in second)
