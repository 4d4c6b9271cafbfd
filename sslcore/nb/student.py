"""Student copies: cells tagged `solution` keep their signatures and docstrings and lose their bodies."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

from sslcore.nb.cells import joined, read_notebook
from sslcore.nb.percent import METADATA, write_notebook

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.Module) -> list[Function]:
    """Functions to empty: those at the top of the cell and the methods (not __init__) of its classes."""
    found: list[Function] = []
    for node in tree.body:
        if isinstance(node, Function):
            found.append(node)
        elif isinstance(node, ast.ClassDef):
            found += [item for item in node.body if isinstance(item, Function) and item.name != "__init__"]
    return found


def _gap(function: Function, lines: list[str]) -> tuple[int, int, list[str]]:
    """First line to drop, line after the last one to drop (0-based), and the lines to put there."""
    body = function.body
    documented = ast.get_docstring(function) is not None
    pad = " " * (function.col_offset + 4)
    gap = [f'{pad}raise NotImplementedError("{function.name}: replace this line by your own code")']
    if body[0].lineno == _signature_end(function, lines):  # `def f(x): return x` has its body on the signature's line
        first = body[0]
        head = lines[first.lineno - 1].encode()[: first.col_offset].decode().rstrip()
        return first.lineno - 1, body[-1].end_lineno, [head, *gap]
    if documented:
        return body[0].end_lineno, body[-1].end_lineno, gap
    return _signature_end(function, lines), body[-1].end_lineno, gap


def _signature_end(function: Function, lines: list[str]) -> int:
    """1-based line on which the signature's colon stands: the first one outside brackets after `def`."""
    depth = 0
    text = "\n".join(lines[function.lineno - 1 :])
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string in ("(", "[", "{"):
            depth += 1
        elif token.string in (")", "]", "}"):
            depth -= 1
        elif token.string == ":" and depth == 0:
            break
    return function.lineno + token.start[0] - 1


def emptied(source: str) -> str:
    """The cell with every function body replaced by `raise NotImplementedError`.

    Raises ValueError for a cell without a function: its solution would stay visible.
    """
    functions = _functions(ast.parse(source))
    if not functions:
        raise ValueError("a cell tagged solution holds no function to empty")
    lines = source.splitlines()
    for function in reversed(functions):
        first, after, gap = _gap(function, lines)
        lines[first:after] = gap
    return "\n".join(lines)


def student_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy without outputs whose solution cells are emptied and tagged `gap`."""
    cells = []
    for cell in notebook["cells"]:
        tags = list(cell.get("metadata", {}).get("tags", ()))
        source = joined(cell["source"])
        if "solution" in tags and cell["cell_type"] == "code":
            source = emptied(source)
        elif "solution" in tags:
            continue  # a written solution has nothing to leave behind
        tags = ["gap" if tag == "solution" else tag for tag in tags]
        copy = {**cell, "source": source.splitlines(keepends=True), "metadata": {"tags": tags} if tags else {}}
        if cell["cell_type"] == "code":
            copy |= {"execution_count": None, "outputs": []}
        cells.append(copy)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def write_student_copies(chapters: str | Path, target: str | Path) -> list[Path]:
    """Write a student copy of every `NN_family/*.ipynb` under `chapters` to the same place under `target`.

    Raises ValueError if target is the chapters folder itself, or if a notebook's solution cell cannot be emptied.
    """
    chapters, target = Path(chapters), Path(target)
    if chapters.resolve() == target.resolve():
        raise ValueError(f"target: expected another folder than {chapters}; student copies would replace the originals")
    written = []
    for path in sorted(chapters.glob("[0-9]*/*.ipynb")):
        try:
            notebook = student_notebook(read_notebook(path))
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        written.append(write_notebook(target / path.parent.name / path.name, notebook))
    return written
