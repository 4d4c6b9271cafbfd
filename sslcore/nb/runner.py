"""Run a notebook as plain Python: no kernel, no Jupyter; for GPU machines and for quick checks."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import linecache
import os
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sslcore.nb.cells import read_cells


def show(*values: Any, **_ignored: Any) -> None:
    """Print what Jupyter would display: markdown for objects that offer it, else their repr."""
    for value in values:
        markdown = getattr(value, "_repr_markdown_", None)
        print(markdown() if callable(markdown) else repr(value))


class _Text:
    """Stands in for IPython.display.Markdown, HTML, ...: shows the text it was given."""

    def __init__(self, data: Any = "", **_ignored: Any) -> None:
        self.data = data

    def __repr__(self) -> str:
        return str(self.data)


def _display_stub() -> types.ModuleType:
    stub = types.ModuleType("IPython.display")
    stub.display = show
    stub.clear_output = lambda *args, **kwargs: None
    for name in ("Markdown", "HTML", "Latex", "Image", "SVG"):
        setattr(stub, name, _Text)
    return stub


@contextlib.contextmanager
def _as_kernel(main: types.ModuleType, folder: Path, scale: str) -> Iterator[None]:
    """Working directory, environment and modules as a kernel started in the notebook's folder would have them."""
    before = Path.cwd()
    variables = {name: os.environ.get(name) for name in ("SSLCORE_SCALE", "MPLBACKEND", "SSLCORE_WIDGETS")}
    # Classes defined in cells look up their module (dataclasses, pickle), so the cells' namespace is __main__.
    modules = {"__main__": main}
    if importlib.util.find_spec("IPython") is None:
        package = types.ModuleType("IPython")
        package.display = _display_stub()
        package.get_ipython = lambda: None
        modules |= {"IPython": package, "IPython.display": package.display}
    saved = {name: sys.modules.get(name) for name in modules}
    try:
        os.environ.update(SSLCORE_SCALE=scale, MPLBACKEND="Agg", SSLCORE_WIDGETS="0")
        sys.modules.update(modules)
        os.chdir(folder)
        yield
    finally:
        os.chdir(before)
        for name, module in saved.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _execute(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Execute one cell; a last line that is an expression is shown, as in Jupyter."""
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith(("%", "!")):
            raise ValueError(f"{name}, line {number}: {line!r} is no Python; course notebooks use no magics")
    # linecache makes tracebacks and inspect.getsource show the cell's own lines.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if last is None:
        return
    value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    if value is not None and not source.rstrip().endswith(";"):
        show(value)


def _keep_figures(folder: Path | None, cell: int) -> None:
    """Save the figures a cell left open as cellNN_K.png (if a folder is given) and close them."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    import matplotlib.pyplot as plt

    for order, number in enumerate(plt.get_fignums()):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            plt.figure(number).savefig(folder / f"cell{cell:02d}_{order}.png")
    plt.close("all")


def run(
    notebook: str | Path, scale: str = "cpu", *, figures: str | Path | None = None, timing: bool = False
) -> dict[str, Any]:
    """Execute a notebook's code cells in order in this process and return its namespace.

    scale: "cpu" | "gpu", seen by the notebook as SSLCORE_SCALE. figures: folder for the figures (None: not kept).
    timing: print seconds for each cell. Errors in a cell come through as they are, with the cell in the traceback.
    """
    notebook = Path(notebook).resolve()
    cells = read_cells(notebook)
    figures = None if figures is None else Path(figures).resolve()
    main = types.ModuleType("__main__")
    main.display = show
    with _as_kernel(main, notebook.parent, scale), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*non-interactive.*")
        if "matplotlib" in sys.modules:
            sys.modules["matplotlib"].use("Agg")
        total = time.perf_counter()
        for number, cell in enumerate(cells, 1):
            if cell.kind != "code":
                continue
            start = time.perf_counter()
            _execute(cell.source, f"<{notebook.stem} cell {number}>", main.__dict__)
            _keep_figures(figures, number)
            if timing:
                first = next((line for line in cell.source.splitlines() if line.strip()), "")
                print(f"[cell {number:2d} {time.perf_counter() - start:6.2f} s] {first[:80]}", flush=True)
        if timing:
            print(f"[total   {time.perf_counter() - total:6.2f} s] {notebook.stem}", flush=True)
    return main.__dict__
