"""Sentences for composed scenes: what is there, how many, and where two of the kinds stand to each other."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
Group = tuple[str, str, list[tuple[float, float]]]  # singular, plural, (row, column) centres as fractions of the side


def with_article(noun: str) -> str:
    """`a` or `an` before a noun phrase, by the sound it starts with."""
    start = noun.lower()
    vowel = start[0] in "aeiou" and not start.startswith(("eu", "uni", "one", "use"))
    return f"{'an' if vowel else 'a'} {noun}"


def counted(singular: str, plural: str, number: int) -> str:
    """`a frog`, `two apples`, `12 keys`."""
    if number == 1:
        return with_article(singular)
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {plural}"


def relation(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], margin: float = 0.03
) -> str | None:
    """`left of`, `right of`, `above` or `below` if it holds for every pair of the two groups, else None.

    Where several hold, the one with the widest gap. Rows grow downwards.
    """
    gaps = {
        "left of": min(c for _, c in second) - max(c for _, c in first),
        "right of": min(c for _, c in first) - max(c for _, c in second),
        "above": min(r for r, _ in second) - max(r for r, _ in first),
        "below": min(r for r, _ in first) - max(r for r, _ in second),
    }
    best = max(gaps, key=gaps.__getitem__)
    return best if gaps[best] > margin else None


def sentence(groups: Sequence[Group]) -> str:
    """`a frog left of two apples, with a key`: the first two kinds and their relation, then the rest."""
    if not groups:
        return "nothing"
    phrases = [counted(singular, plural, len(places)) for singular, plural, places in groups]
    if len(groups) == 1:
        return phrases[0]
    link = relation(groups[0][2], groups[1][2]) or "and"
    start, rest = f"{phrases[0]} {link} {phrases[1]}", phrases[2:]
    if not rest:
        return start
    return f"{start}, with {rest[0] if len(rest) == 1 else ', '.join(rest[:-1]) + ' and ' + rest[-1]}"


def describe(kinds: list[list[int]], centres: list[list[list[float]]], names: dict[int, tuple[str, str]]) -> list[str]:
    """One sentence an image. kinds: key into names for each object, -1 = none; centres: (row, column) in sides."""
    sentences = []
    for row, places in zip(kinds, centres, strict=True):
        groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for kind, place in zip(row, places, strict=True):
            if kind >= 0:
                groups.setdefault(names[kind], []).append((place[0], place[1]))
        sentences.append(sentence([(*noun, where) for noun, where in groups.items()]))
    return sentences
