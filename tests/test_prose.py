"""README and notebooks quote only numbers that evidence or a source stands behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcore.experiment import compare
from sslcore.nb.prose import agrees, check_prose, check_prose_of, look_up

ROOT = Path(__file__).parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("chapters/*.md"), *ROOT.glob("chapters/[0-9]*/*.ipynb")])


@pytest.fixture
def chapters(tmp_path):
    arms = {"ssl": lambda s: 0.8124 + s / 1e4, "untrained": lambda s: 0.5, "small vit": lambda s: 0.43}
    folder = tmp_path / "01_contrastive" / "evidence"
    result = compare(arms, (0, 1, 2), claim="c", treatment="ssl", control="untrained", margin=0.01, slug="look")
    result.save(folder)
    return tmp_path


GOOD = [
    "kNN rises to 0.812 <!-- evidence: look.cpu main.values.ssl.0=0.812 --> here.",
    "kNN is **81.2%** <!-- evidence: look.cpu main.values.ssl.0=81.2% -->.",
    "kNN is 81.25 % <!-- evidence: look.cpu main.values.ssl.mean=81.25 % -->.",
    "The effect is +0.31 <!-- evidence: look.cpu main.effect=+0.31 --> in AUROC.",
    "kNN is 0.43 <!-- evidence: look.cpu main.values.small vit.mean=0.43 --> (names may hold spaces).",
    "The paper reports 73.2% top-1. <!-- source: VICReg 2022, table 1 -->",
    "| VICReg | 73.2% | <!-- source: table 1 -->",
    "| VICReg | 73.2% |\n| BYOL | 74.3% |\n<!-- source: table 1 -->",
    "At temperature 0.07 and k = 20 nothing moves; learning rate 1.5e-4, 75% masked.",
    "Code `0.9 AUROC` and math $0.9\\ \\%$ are not results.\n```\nkNN 0.812\n```",
    "<!-- scoreboard:start -->\nAUROC 0.9\n<!-- scoreboard:end -->",
]
BAD = [
    ("kNN rises to 0.813 <!-- evidence: look.cpu main.values.ssl.0=0.813 -->", "has 0.8124"),
    ("kNN rises to 0.822 <!-- evidence: look.cpu main.values.ssl.0=0.812 -->", "comment quotes"),
    ("kNN <!-- evidence: look.cpu main.values.ssl.0=0.812 -->", "comment quotes"),
    ("kNN 0.812 <!-- evidence: seer.cpu main.effect=0.812 -->", "no evidence file"),
    ("kNN 0.812 <!-- evidence: look.cpu other.effect=0.812 -->", "no claim or field 'other'"),
    ("kNN 0.812 <!-- evidence: look.cpu main.values.mae.0=0.812 -->", "nothing at 'mae'"),
    ("kNN 0.812 <!-- evidence: look.cpu main.verdict=0.812 -->", "expected a number"),
    ("Gap (-0.022 <!-- evidence look.cpu main.effect=-0.022 -->)", "cannot read"),
    ("Gap (-0.022 <!-- evidence: look.cpu main.effect -->)", "cannot read"),
    ("An accuracy of 0.93 was reached.", "neither"),
    ("kNN rises to .812 here.", "neither"),
    ("Binding reaches 0.71 AUROC.", "neither"),
    ("It gains 3.5 points, 81.2 % in all.", "neither"),
    ("It gains 3.5% here.\n\nThe paper: 73.2%. <!-- source: table 1 -->", "'3.5%'"),
    ("| ours | 81.2% |\n| VICReg | 73.2% | <!-- source: table 1 -->", "'81.2%'"),
    ("AUROC 0.7 and kNN 0.812 <!-- evidence: look.cpu main.values.ssl.0=0.812 -->", "'AUROC 0.7'"),
    ("The paper: 73.2%. <!-- source: -->", "neither"),
]


@pytest.mark.parametrize("text", GOOD)
def test_backed_prose_passes(chapters, text):
    assert check_prose(text, chapters) == []


@pytest.mark.parametrize(("text", "said"), BAD)
def test_unbacked_prose_is_named(chapters, text, said):
    problems = check_prose(text, chapters)
    assert problems and any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("quoted", "value", "true"),
    [
        ("0.812", 0.81249, True),
        ("0.812", 0.8126, False),
        ("81.2 %", 0.8115, True),
        ("81%", 0.816, False),
        ("-0.04", -0.0449, True),
        ("\u22120.04", -0.04, True),
        ("3", 3.4, True),
        ("0.30", 0.3049, True),
        ("0.30", 0.306, False),
    ],
)
def test_agreement_is_to_the_printed_digits(quoted, value, true):
    assert agrees(quoted, value) is true


def test_paths_walk_readouts_too():
    evidence = {"claims": {}, "readouts": {"binding": {"value": 0.7, "curve": [1.0, 2.0]}}}
    assert look_up(evidence, "readouts.binding.value") == 0.7
    assert look_up(evidence, "readouts.binding.curve.mean") == 1.5


@pytest.mark.parametrize("path", TEXTS, ids=[path.name for path in TEXTS])
def test_this_repository_quotes_only_what_it_measured(path):
    assert check_prose_of(path, ROOT / "chapters") == []
