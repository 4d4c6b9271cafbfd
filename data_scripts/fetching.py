"""Download a file with a progress bar, go on where the last try stopped, and trust it only by its SHA-256."""

from __future__ import annotations

import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from sslcore.files import sha256

PIECE = 1 << 18
LARGEST_MEMBER = 4 << 30


def download(url: str, target: Path, expected_sha256: str, timeout: float = 30.0) -> Path:
    """Fetch `url` to `target` unless it is already there.

    What arrives goes to `target.part`; a later call asks the server for the missing end only. The file gets its name
    after its checksum has been compared. Raises SystemExit with the remedy in words: offline, server error, disk full,
    wrong checksum.
    """
    if target.exists():
        if sha256(target) == expected_sha256:
            return target
        raise SystemExit(f"{target}: wrong SHA-256; delete it and run this again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _transfer(url, part, timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is missing any more, the checksum decides
            raise SystemExit(f"{url}: the server answered {error.code} {error.reason}. {_by_hand(url)}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        kept = f" {part.stat().st_size:,} bytes are kept in {part}; run this again to go on." if part.exists() else ""
        raise SystemExit(f"{url}: cannot be reached ({error}). Offline?{kept} {_by_hand(url)}") from error
    found = sha256(part)
    if found != expected_sha256:
        part.unlink()
        raise SystemExit(
            f"{url}: expected SHA-256 {expected_sha256}, got {found}. The download was deleted; try again."
        )
    return part.rename(target)


def _by_hand(url: str) -> str:
    return f"Or download {url} on another machine and pass it with --archive FILE."


def _transfer(url: str, part: Path, timeout: float) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sslcore", "Range": f"bytes={done}-"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status != 206:  # the server sends all of it, whatever was asked for
            done = 0
        rest = int(answer.headers.get("Content-Length") or 0)
        if rest > shutil.disk_usage(part.parent).free:
            raise SystemExit(f"{part.parent}: {rest:,} bytes are needed, less is free on this disk")
        bar = tqdm(total=done + rest or None, initial=done, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with bar, open(part, "ab" if done else "wb") as file:
            while piece := answer.read(PIECE):
                file.write(piece)
                bar.update(len(piece))
        if rest and part.stat().st_size < done + rest:
            raise ConnectionError("the connection closed early")


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each file in a tar archive, in order. Nothing is ever written to disk.

    Raises SystemExit on anything a plain data set has no use for: absolute paths, `..`, links, devices, huge members.
    """
    try:
        with tarfile.open(archive) as opened:
            for entry in opened:
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts or "\\" in entry.name or ":" in entry.name:
                    raise SystemExit(f"{archive}: refused member {entry.name!r}: its path leaves the archive")
                if entry.isdir():
                    continue
                if not entry.isreg():
                    raise SystemExit(f"{archive}: refused member {entry.name!r}: neither a plain file nor a folder")
                if entry.size > LARGEST_MEMBER:
                    raise SystemExit(f"{archive}: refused member {entry.name!r}: {entry.size:,} bytes")
                content = opened.extractfile(entry)
                assert content is not None  # a regular file always has content
                yield path.as_posix(), content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SystemExit(
            f"{archive}: cannot be read as a tar archive ({error}); delete it and download it again"
        ) from error
