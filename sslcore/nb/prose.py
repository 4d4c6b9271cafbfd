"""Numbers in prose: every measured one carries its evidence, every borrowed one its source.

    kNN rises by 0.041 <!-- evidence: look.cpu main.effect=0.041 --> to 81.2% <!-- evidence: ... =81.2% -->.
    The paper reports 73.2 % top-1. <!-- source: Bardes et al. 2022, table 1 -->

An evidence comment stands right behind its number and repeats it as printed; the path walks the JSON file
(`main` = claims.main; a list takes an index or `mean`), and the value must round to the printed digits. A source
comment covers the paragraph before it, the list item or table row it stands in, or, on its own line, the block above.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from sslcore.evidence import EvidenceError, load_evidence
from sslcore.nb.cells import read_cells

_NUMBER = r"[-+\u2212]?\d*\.?\d+(?:\s?%)?"
_EVIDENCE = re.compile(r"<!--\s*evidence:\s*(?P<file>\S+)\s+(?P<path>[^=>]+?)=(?P<quoted>[^>]*?)\s*-->")
_ANY_EVIDENCE = re.compile(r"<!--\s*evidence\b.*?-->", re.DOTALL)
_BEHIND = re.compile(rf"(?P<number>{_NUMBER})[*_\])]*\s*$")
_SOURCE = re.compile(r"<!--\s*source:\s*\S.*?-->", re.DOTALL)
_METRIC = r"(?:AUROC|AUC|k-?NN|accurac(?:y|ies)|top-1|Jaccard|CorLoc|mIoU|IoU|RankMe|mAP)"
# What reads as a measured result: a percentage with a decimal, or a decimal beside the name of a metric.
_RESULT = re.compile(
    rf"\d+\.\d+\s?(?:%|percent|points)|\d*\.\d+\s+(?:\w+\s+)?{_METRIC}\b|\b{_METRIC}\s+(?:\w+\s+){{0,2}}[=:]?\s*\d*\.\d+",
    re.IGNORECASE,
)
_IGNORED = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|<!-- scoreboard:start -->.*?<!-- scoreboard:end -->", re.DOTALL
)


def _blank(match: re.Match[str]) -> str:
    """As many characters, line breaks kept, so that positions stay true."""
    return re.sub(r"[^\n]", " ", match.group())


def look_up(evidence: dict[str, Any], path: str) -> float:
    """The number at a dotted path of an evidence file. Raises EvidenceError naming the part that is missing."""
    first, *rest = path.split(".")
    value = evidence["claims"].get(first, evidence.get(first))
    if value is None:
        known = ", ".join([*evidence["claims"], *evidence])
        raise EvidenceError(f"{path}: no claim or field {first!r}; there are {known}")
    for part in rest:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part == "mean":
            value = sum(value) / len(value)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise EvidenceError(f"{path}: nothing at {part!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvidenceError(f"{path}: expected a number, got {value!r}")
    return value


def agrees(quoted: str, value: float) -> bool:
    """Whether the value, rounded, gives the printed number: 0.812, -0.04, 81.2 % (then value x 100)."""
    text = quoted.replace("\u2212", "-").strip()
    percent = text.endswith("%")
    printed = Decimal(text.rstrip("% "))
    exact = Decimal(repr(value)) * (100 if percent else 1)
    return abs(printed - exact) <= Decimal(5).scaleb(printed.as_tuple().exponent - 1)


def _check_comment(text: str, match: re.Match[str], chapters: Path) -> str | None:
    """What is wrong with one evidence comment, or None."""
    quoted = match["quoted"]
    before = _BEHIND.search(text[: match.start()])
    if before is None or before["number"].replace(" ", "") != quoted.replace(" ", ""):
        return f"comment quotes {quoted}, the text before it ends in {text[max(0, match.start() - 20):match.start()]!r}"
    paths = list(chapters.glob(f"*/evidence/{match['file']}.json"))
    if not paths:
        return f"no evidence file {match['file']}.json"
    try:
        value = look_up(load_evidence(paths[0]), match["path"])
    except EvidenceError as error:
        return str(error)
    if agrees(quoted, value):
        return None
    return f"quotes {match['path']} as {quoted}, {match['file']}.json has {value:.6g}"


def _covered(text: str) -> list[tuple[int, int]]:
    """Character ranges that a source comment vouches for."""
    ranges, start = [], 0
    for block in re.split(r"(\n\s*\n)", text):
        for source in _SOURCE.finditer(block):
            line_start = block.rfind("\n", 0, source.start()) + 1
            line = block[line_start : source.start()]
            item = line.lstrip().startswith(("|", "- ", "* "))
            ranges.append((start + (line_start if item else 0), start + source.end()))
        start += len(block)
    return ranges


def check_prose(text: str, chapters: str | Path) -> list[str]:
    """Problems of one markdown text: wrong or dangling evidence comments, results without evidence or source."""
    text = _IGNORED.sub(_blank, text)
    problems, vouched, covered = [], [], _covered(text)
    for comment in _ANY_EVIDENCE.findall(text):  # one that cannot be read must not pass unread
        if _EVIDENCE.fullmatch(comment) is None:
            problems.append(f"cannot read {comment!r}; expected <!-- evidence: FILE PATH=NUMBER -->")
    for match in _EVIDENCE.finditer(text):
        problem = _check_comment(text, match, Path(chapters))
        problems += [problem] if problem else []
        # A number is vouched for by the evidence comment that follows it at once.
        before = _BEHIND.search(text[: match.start()])
        vouched += [before.span("number")] if before else []
    # Comments hold numbers themselves; blank them before looking for bare results.
    bare = re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL)
    for result in _RESULT.finditer(bare):
        if any(low <= result.start() < high for low, high in covered):
            continue
        if any(low < result.end() and result.start() < high for low, high in vouched):
            continue
        shown = " ".join(result.group().split())
        problems.append(f"{shown!r} has neither an evidence nor a source comment")
    return problems


def check_prose_of(path: str | Path, chapters: str | Path) -> list[str]:
    """check_prose for a .md file, or for every markdown cell of an .ipynb; problems name the file."""
    path = Path(path)
    if path.suffix == ".ipynb":
        texts = [(f"{path.name} cell {n}", c.source) for n, c in enumerate(read_cells(path), 1) if c.kind == "markdown"]
    else:
        texts = [(path.name, path.read_text(encoding="utf-8"))]
    return [f"{where}: {problem}" for where, text in texts for problem in check_prose(text, chapters)]
