"""The notebook contract as a list of checks: order, headings, size, fresh outputs, evidence behind numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sslcore.evidence import EvidenceError, evidence_path, load_evidence
from sslcore.nb.cells import Cell, joined, read_cells, read_notebook
from sslcore.nb.execute import machine_paths
from sslcore.nb.prose import check_prose_of
from sslcore.scoreboard import find_entry

MAX_CODE_LINES = 200
MAX_BYTES = 1_500_000
# Each must begin or occur in a heading, in this order. Base notebooks that teach no paper keep the short list.
PAPER_HEADINGS = (
    "goals", "puzzle", "idea", "from scratch", "exercise", "train", "claim", "break it", "attention", "binding",
    "what we saw", "questions", "further reading",
)  # fmt: skip
SHORT_HEADINGS = ("goals", "questions", "further reading")
SHORT_CHAPTERS = (
    "00_start",
    "01_contrastive/contrastive_family",
    "04_masked/masked_family",
    "12_emergence/leaderboard",
)


def _is_short(path: Path) -> bool:
    return f"{path.parent.name}/{path.stem}".startswith(SHORT_CHAPTERS)


def code_lines(cells: Iterable[Cell]) -> int:
    """Lines of code: not blank, not only a comment."""
    lines = [line.strip() for cell in cells if cell.kind == "code" for line in cell.source.splitlines()]
    return sum(1 for line in lines if line and not line.startswith("#"))


def headings(cells: Iterable[Cell]) -> list[str]:
    """All markdown headings, in lower case, in order."""
    lines = [line for cell in cells if cell.kind == "markdown" for line in cell.source.splitlines()]
    return [line.lstrip("#").strip().lower() for line in lines if re.match(r"#{1,4} ", line)]


def _check_text(path: Path, cells: list[Cell]) -> list[str]:
    problems = []
    first = cells[0].source if cells and cells[0].kind == "markdown" else ""
    if not first.startswith("# "):
        problems.append("the first cell must be markdown and start with '# title'")
    short = _is_short(path)
    for word in ("cost",) if short else ("claim", "cost"):
        if word not in first.lower():
            problems.append(f"the first cell must state the {word}")
    position, found = 0, headings(cells)
    for keyword in SHORT_HEADINGS if short else PAPER_HEADINGS:
        places = [i for i, heading in enumerate(found) if keyword in heading]
        later = [i for i in places if i >= position]
        if not places:
            problems.append(f"no heading contains {keyword!r}")
        elif not later:
            problems.append(f"heading {keyword!r} comes too early; expected order: {', '.join(PAPER_HEADINGS)}")
        else:
            position = later[0]
    setups = sum(1 for cell in cells if cell.kind == "code" and re.search(r"\bsetup\(", cell.source))
    if setups != 1:
        problems.append(f"expected one cell that calls setup(), found {setups}")
    gaps = sum(1 for cell in cells if cell.kind == "code" and "solution" in cell.tags)
    if not short and gaps < 2:
        problems.append(f"expected at least 2 code cells tagged solution, found {gaps}")
    lines = code_lines(cells)
    if lines > MAX_CODE_LINES:
        problems.append(f"{lines} lines of code, at most {MAX_CODE_LINES}")
    return problems


def _check_outputs(cells: list[Cell]) -> list[str]:
    problems = []
    code = [cell for cell in cells if cell.kind == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        problems.append(f"not executed in order in a fresh kernel: counts {counts}; use python -m sslcore.nb execute")
    paths = machine_paths()
    for number, cell in enumerate(cells, 1):
        if any(line.startswith(("%", "!")) for line in cell.source.splitlines()) and cell.kind == "code":
            problems.append(f"cell {number}: a magic or shell line; the cells must run as plain Python")
        if named := paths.search(cell.source):
            problems.append(f"cell {number}: names a machine's path {named.group()}")
        for output in cell.outputs:
            if output.get("output_type") == "error":
                problems.append(f"cell {number}: stored error {output.get('ename')}")
            if output.get("name") == "stderr":
                problems.append(f"cell {number}: stored warnings: {joined(output['text'])[:80]!r}")
            kinds = output.get("data", {})
            if any("widget" in kind for kind in kinds):
                problems.append(f"cell {number}: stored widget view; it shows as an error without its kernel")
            texts = [joined(value) for kind, value in kinds.items() if kind.startswith("text/")]
            for text in [*texts, joined(output.get("text", ""))]:
                if named := paths.search(text):
                    problems.append(f"cell {number}: output names a machine's path {named.group()}")
    return problems


def _check_evidence(path: Path, cells: list[Cell]) -> list[str]:
    code = "\n".join(cell.source for cell in cells if cell.kind == "code")
    if not re.search(r"\bcompare\(|\bpartial\(compare\b", code):
        return [] if _is_short(path) else ["no compare(): the claim is not tested"]
    stored = evidence_path(path.parent / "evidence", path.stem, "cpu")
    if not stored.exists():
        return [f"evidence/{stored.name} is missing"]
    try:
        evidence = load_evidence(stored)
    except EvidenceError as error:
        return [str(error)]
    stale = [key for key in evidence["claims"] if key != "main" and not re.search(rf"[\"']{re.escape(key)}[\"']", code)]
    problems = [f"evidence/{stored.name} holds claim {key!r}, which no cell names: stale" for key in stale]
    missing = [] if _is_short(path) else [name for name in ("attention", "binding") if name not in evidence["readouts"]]
    return problems + [f"evidence/{stored.name} has no {name} read-out" for name in missing]


def check_notebook(path: str | Path, *, executed: bool = True) -> list[str]:
    """Problems of one notebook, in words; an empty list when it keeps the contract. executed=False: sources only."""
    path = Path(path).resolve()
    cells = read_cells(path)
    problems = _check_text(path, cells)
    if find_entry(path.stem) is None:
        problems.append(f"{path.stem} is not in the list of notebooks in sslcore/scoreboard_entries.py")
    ids = [cell.get("id") for cell in read_notebook(path)["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        problems.append("cells need unique ids (format 4.5)")
    if executed:
        problems += _check_outputs(cells) + _check_evidence(path, cells)
        if path.stat().st_size > MAX_BYTES:
            problems.append(f"{path.stat().st_size / 1e6:.2f} MB, at most {MAX_BYTES / 1e6} MB")
    return [f"{path.name}: {problem}" for problem in problems] + check_prose_of(path, path.parents[1])


def check_notebooks(paths: Iterable[str | Path], *, executed: bool = True) -> list[str]:
    """check_notebook for each path, one list."""
    return [problem for path in paths for problem in check_notebook(path, executed=executed)]
