"""Execute notebooks in a fresh kernel through nbval, offline, against a clock.

python tests/notebooks.py [--slack 2] chapters/*/*.ipynb

Each notebook runs in its own process: `pytest --nbval-lax` (outputs are not compared, errors fail), with the evidence
sent to a scratch folder so that a check never rewrites what is committed. SSLCORE_NOTEBOOK_SLACK multiplies the 60 s a
notebook may take on two idle cores; a shared or slower machine needs more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 60.0
STARTUP = 30.0  # pytest, the kernel and the first import of torch; not the notebook's doing
ROOT = Path(__file__).parents[1]


def slack() -> float:
    """How many times slower than two idle cores this machine may be."""
    return float(os.environ.get("SSLCORE_NOTEBOOK_SLACK", "4"))


def environment(scratch: str) -> dict[str, str]:
    """No network for model hubs, no progress bars or widgets, evidence aside, and the kernel's own figure backend."""
    settings = {
        "SSLCORE_SCALE": "cpu",
        "SSLCORE_EVIDENCE": scratch,
        "SSLCORE_WIDGETS": "0",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "http_proxy": "http://127.0.0.1:9",  # nobody listens: a download fails at once instead of reaching out
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    inherited = {k: v for k, v in os.environ.items() if k != "MPLBACKEND" and not k.startswith("COV_CORE")}
    return {**inherited, **settings}


def run_notebook(path: Path, factor: float | None = None) -> tuple[bool, float, str]:
    """Execute one notebook; returns whether it passed, the seconds it took, and what pytest said."""
    limit = SECONDS * (factor or slack()) + STARTUP
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-x", "-q", "--tb=short"]
    command += [f"--nbval-cell-timeout={int(limit)}", "--nbval-kernel-startup-timeout=120"]
    # An empty configuration: the repository's own options (xdist, strict markers) are for its Python tests.
    command += ["-c", os.devnull, "--rootdir", str(path.parent), str(path)]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                command, cwd=path.parent, env=environment(scratch), timeout=limit, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired as late:
            said = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            return False, limit, f"{path.name}: stopped after {limit:.0f} s\n{said[-2000:]}"
    return done.returncode == 0, time.perf_counter() - start, done.stdout + done.stderr


def main() -> int:
    """Run the named notebooks one after the other and print a line for each; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="+")
    parser.add_argument("--slack", type=float, default=None, help="multiplies the 60 s (default: 4)")
    chosen = parser.parse_args()
    failed = 0
    for path in chosen.notebooks:
        passed, seconds, said = run_notebook(path.resolve(), chosen.slack)
        print(f"{'ok    ' if passed else 'FAILED'} {seconds:6.1f} s  {path}", flush=True)
        if not passed:
            failed += 1
            print(said[-6000:])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
