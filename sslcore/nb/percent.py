"""Percent format (`# %%` cells in a .py file) to notebook and back, deterministically."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from sslcore.files import write_text
from sslcore.nb.cells import Cell, read_cells

_MARKER = re.compile(r"^# %%(?P<rest>.*)$")
_TAGS = re.compile(r"tags=(?P<tags>\[[^\]]*\])")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def _uncommented(line: str, number: int) -> str:
    if line.strip() in ("", "#"):
        return ""
    if not line.startswith("# "):
        raise ValueError(f"line {number}: a markdown cell's lines start with '# ', got {line!r}")
    return line[2:]


def parse_percent(text: str) -> list[Cell]:
    """Cells of a percent-format text.

    A cell starts at `# %%` (code) or `# %% [markdown]`, either with `tags=["exercise", "solution"]` behind it; markdown
    lines carry a leading `# `. Raises ValueError for text before the first marker or an uncommented markdown line.
    """
    cells: list[Cell] = []
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        marker = _MARKER.match(line)
        if marker:
            if cells:
                cells[-1].source = "\n".join(lines).strip("\n")
            tags = _TAGS.search(marker["rest"])
            kind = "markdown" if "[markdown]" in marker["rest"] else "code"
            cells.append(Cell(kind, "", tuple(json.loads(tags["tags"])) if tags else ()))
            lines = []
        elif cells:
            lines.append(_uncommented(line, number) if cells[-1].kind == "markdown" else line.rstrip())
        elif line.strip():
            raise ValueError(f"line {number}: expected a '# %%' marker first, got {line!r}")
    if not cells:
        raise ValueError("no '# %%' marker found")
    cells[-1].source = "\n".join(lines).strip("\n")
    return cells


def to_notebook(cells: list[Cell]) -> dict[str, Any]:
    """A version 4.5 notebook without outputs. A cell's id comes from its content, so an edit changes one id."""
    seen: dict[str, int] = {}
    entries = []
    for cell in cells:
        digest = hashlib.sha256(f"{cell.kind}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        entry: dict[str, Any] = {
            "cell_type": cell.kind,
            "id": digest if seen[digest] == 1 else f"{digest}-{seen[digest]}",
            "metadata": {"tags": list(cell.tags)} if cell.tags else {},
            "source": cell.source.splitlines(keepends=True),
        }
        if cell.kind == "code":
            entry |= {"execution_count": None, "outputs": []}
        entries.append(entry)
    return {"cells": entries, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(path: str | Path, notebook: dict[str, Any]) -> Path:
    """Write notebook JSON in the layout Jupyter itself uses (sorted keys, indent 1)."""
    return write_text(path, json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def from_percent(source: str | Path, target: str | Path) -> Path:
    """Convert a percent-format file to a notebook without outputs."""
    return write_notebook(target, to_notebook(parse_percent(Path(source).read_text(encoding="utf-8"))))


def to_percent(notebook: str | Path, target: str | Path) -> Path:
    """Convert a notebook to percent format; from_percent on the result gives the same cells."""
    parts = []
    for cell in read_cells(notebook):
        tags = f" tags={json.dumps(list(cell.tags))}" if cell.tags else ""
        if cell.kind == "markdown":
            body = "\n".join(f"# {line}".rstrip() for line in cell.source.splitlines())
            parts.append(f"# %% [markdown]{tags}\n{body}\n")
        else:
            parts.append(f"# %%{tags}\n{cell.source}\n")
    return write_text(target, "\n".join(parts))
