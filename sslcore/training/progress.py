"""The progress bar, and when there is one."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any


def wants_bar(progress: bool | None) -> bool:
    """What was asked for; if nothing was, a bar on a terminal or in a notebook, never under CI or TQDM_DISABLE=1."""
    if progress is not None:
        return progress
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
    # The loop tells tqdm outright whether to draw, so tqdm does not look at its own variable any more.
    quiet = os.environ.get("CI") or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return not quiet and (sys.stderr.isatty() or in_notebook)


def progress_bar(done: int, steps: int, name: str, progress: bool | None) -> Any:
    """The steps still to do, as a tqdm that may be silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm.auto complains where ipywidgets is missing and draws text instead
        from tqdm.auto import tqdm

    silent = not wants_bar(progress)
    return tqdm(range(done, steps), initial=done, total=steps, desc=name, disable=silent, leave=False)
