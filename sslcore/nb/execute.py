"""Execute a notebook in place with a fresh kernel and store it without anything that names the machine."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from sslcore.files import chapters_folder
from sslcore.nb.cells import joined, read_notebook
from sslcore.nb.percent import METADATA, write_notebook

# Tried only where a word starts: anywhere else, a long line of base64 would take quadratic time.
_LIBRARY = r"(?<![^\s\"'<>])[^\s\"'<>]*site-packages[/\\]"
_GENERAL = (r"/home/", r"/root/", r"/Users/", r"/tmp/", r"[A-Z]:\\Users", _LIBRARY)


def machine_paths() -> re.Pattern[str]:
    """Matches a path that names somebody's machine: the usual home folders and this checkout's own place."""
    own = [re.escape(str(folder)) for folder in (chapters_folder().parent, Path(sys.prefix)) if len(folder.parts) > 1]
    return re.compile("(?:" + "|".join([*own, *_GENERAL]) + r")[^\s\"'<>]*")


def quiet_environment() -> dict[str, str]:
    """Environment for kernels whose outputs are kept: no progress bars, figures in place of widgets, no network."""
    quiet = {"SSLCORE_WIDGETS": "0", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    environment = {**os.environ, **quiet}
    environment.pop("MPLBACKEND", None)  # the kernel chooses its inline backend only when nothing else is set
    return environment


def _clean_output(output: dict[str, Any]) -> dict[str, Any] | None:
    """The output without widget views, timestamps and folders of this machine; None when nothing is left."""
    if output.get("output_type") == "stream":
        return {**output, "text": machine_paths().sub("...", joined(output["text"])).splitlines(keepends=True)}
    if "data" in output:
        data = {kind: value for kind, value in output["data"].items() if "widget" not in kind}
        for kind, value in data.items():
            if kind.startswith("text/"):
                data[kind] = machine_paths().sub("...", joined(value)).splitlines(keepends=True)
        return {**output, "data": data, "metadata": {}} if data else None
    return output


def clean_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy with the plain course metadata, without execution times, widget state and machine paths."""
    cells = []
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags")
        cell = {**cell, "metadata": {"tags": tags} if tags else {}}
        if cell["cell_type"] == "code":
            outputs = [_clean_output(output) for output in cell["outputs"]]
            cell["outputs"] = [output for output in outputs if output is not None]
        cell["source"] = joined(cell["source"]).splitlines(keepends=True)
        cells.append(cell)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def execute(notebook: str | Path, timeout: int = 600) -> Path:
    """Run all cells in a fresh kernel started in the notebook's folder; write the cleaned result in place.

    timeout: seconds a cell may take. An error in a cell is raised and the file stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    path = Path(notebook).resolve()
    node = nbformat.reads(json.dumps(clean_notebook(read_notebook(path))), as_version=4)
    client = NotebookClient(
        node,
        timeout=timeout,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=quiet_environment())
    return write_notebook(path, clean_notebook(node))
