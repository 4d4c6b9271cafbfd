"""Write built files aside and rename them, or compare them with what is committed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from sslcore.data.storage import EMBEDDED, checksums, write_aside
from sslcore.files import sha256


def finish(files: Mapping[Path, bytes], check: bool) -> int:
    """Write every file and enter embedded arrays in checksums.json; with `check`, only compare. The exit status."""
    wrong = 0
    table = checksums() if (EMBEDDED / "checksums.json").exists() else {}
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        if check:
            found = sha256(path) if path.exists() else "no file"
            same = found == digest
            wrong += not same
            print(f"{'same     ' if same else 'DIFFERENT'} {path}: built {digest[:16]}, on disk {found[:16]}")
            continue
        write_aside(path, content)
        print(f"wrote {path} ({len(content):,} bytes, sha256 {digest})")
        if path.is_relative_to(EMBEDDED) and path.suffix == ".npz":
            table[path.relative_to(EMBEDDED).as_posix()] = digest
    if not check and any(path.is_relative_to(EMBEDDED) for path in files):
        write_aside(EMBEDDED / "checksums.json", (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())
    return int(wrong > 0)
