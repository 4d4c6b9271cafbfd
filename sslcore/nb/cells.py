"""Reading a notebook file as a list of cells, with nothing but the json module."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Cell:
    """One cell: kind "code" or "markdown", its text, its tags and (code) its stored outputs."""

    kind: str
    source: str
    tags: tuple[str, ...] = ()
    execution_count: int | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)


def joined(text: str | list[str]) -> str:
    """Notebook text as one string; the format allows a string or a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def read_notebook(path: str | Path) -> dict[str, Any]:
    """The notebook's JSON. Raises ValueError naming the file when it is not a version-4 notebook."""
    path = Path(path)
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: not a notebook ({error})") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or "cells" not in notebook:
        raise ValueError(f"{path.name}: expected notebook format 4 with cells")
    return notebook


def read_cells(path: str | Path) -> list[Cell]:
    """The cells of a notebook, in order."""
    return [
        Cell(
            kind=cell["cell_type"],
            source=joined(cell["source"]),
            tags=tuple(cell.get("metadata", {}).get("tags", ())),
            execution_count=cell.get("execution_count"),
            outputs=cell.get("outputs", []),
        )
        for cell in read_notebook(path)["cells"]
    ]
