"""Files the course writes: put aside first, renamed when whole, so that a killed run never leaves half a file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder; rename it to `path` when the block ends without an error.

    Creates the folder. On an error the temporary file is removed and an existing target stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)  # mkstemp makes files private; the result should look like any other file
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 at `path`, aside and renamed. Returns the path."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chapters_folder() -> Path:
    """Where the notebooks, their evidence and the checkpoints live.

    SSLCORE_CHAPTERS if set; else the `chapters` folder in or above the working directory (JupyterLab starts a
    kernel in the notebook's folder); else the one beside the package (an editable install used from elsewhere).
    """
    chosen = os.environ.get("SSLCORE_CHAPTERS")
    if chosen:
        return Path(chosen).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.name == "chapters" and (folder / "00_start").is_dir():
            return folder
        if (folder / "chapters").is_dir():
            return folder / "chapters"
    return Path(__file__).resolve().parents[1] / "chapters"
