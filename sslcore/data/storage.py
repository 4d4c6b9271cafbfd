"""Array files that are the same bytes every time, and loading that says what is wrong with a file."""

from __future__ import annotations

import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sslcore.files import sha256, written_aside

EMBEDDED = Path(__file__).parent
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip entry can carry: no clock in the bytes


class DataFileError(ValueError):
    """A data file is there but cannot be trusted: truncated, altered, or of another layout."""


def data_folder() -> Path:
    """Folder of built and downloaded files: $SSLCORE_DATA, else ./data if there is one, else ~/.cache/sslcore."""
    if chosen := os.environ.get("SSLCORE_DATA"):
        return Path(chosen).expanduser()
    here = Path("data")
    return here if here.is_dir() else Path.home() / ".cache" / "sslcore"


def write_aside(path: Path, content: bytes) -> None:
    """Write bytes beside their place, then rename: a reader sees the old file or the new one, never half of it."""
    with written_aside(path) as aside:
        aside.write_bytes(content)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Compressed .npz whose bytes depend on the arrays alone: sorted names, fixed dates, LZMA, no pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(name + ".npy", date_time=EPOCH)
            entry.compress_type = zipfile.ZIP_LZMA
            entry.create_system = 3
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def read_npz(
    path: Path, expected_sha256: str | None = None, made_by: str = "", names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, never unpickling.

    Args:
        path: the file.
        expected_sha256: checked against the file's bytes when given.
        made_by: the command that makes the file, quoted in errors.
        names: the arrays wanted; None = all.

    Raises:
        FileNotFoundError: no such file; the message names `made_by`.
        DataFileError: wrong checksum, truncated or unreadable content, a wanted array not in it.
    """
    remedy = f" Make it again with: {made_by}" if made_by else ""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.{remedy}")
    if expected_sha256 is not None and (found := sha256(path)) != expected_sha256:
        size = path.stat().st_size
        raise DataFileError(f"{path}: expected SHA-256 {expected_sha256}, got {found} ({size} bytes).{remedy}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (archive.files if names is None else names)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise DataFileError(f"{path}: expected an .npz archive, could not read it ({error}).{remedy}") from error


def checksums() -> dict[str, str]:
    """SHA-256 of every embedded array file, by path relative to this folder."""
    return json.loads((EMBEDDED / "checksums.json").read_text("utf-8"))


def read_embedded(relative: str, made_by: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an embedded file after comparing its checksum."""
    return read_npz(EMBEDDED / relative, checksums()[relative], made_by, names)
