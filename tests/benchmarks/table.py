"""The race's table in markdown, built from the result files and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
START, END = "<!-- race:start -->", "<!-- race:end -->"
HEADER = ("work", "ours", "best peer", "faster", "above the floor", "memory, ours", "leanest peer")


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """{"cpu": ..., "gpu": ...} as far as they have been measured."""
    paths = {scale: folder / f"{scale}.json" for scale in ("cpu", "gpu")}
    return {scale: json.loads(path.read_text(encoding="utf-8")) for scale, path in paths.items() if path.exists()}


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def _memory(num_bytes: float | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:.3g} MiB"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 20 else f"{ratio:.0f}x"


def row(case: dict[str, Any]) -> list[str]:
    """The cells of one case: our time beside the fastest peer's, our memory beside the leanest peer's."""
    seconds, memory = dict(case["seconds"]), dict(case["peak_bytes"])
    ours, our_memory = seconds.pop("ours"), memory.pop("ours", None)
    cells = [f"{case['name']}, {case['size']}", _time(ours)]
    if seconds:
        best = min(seconds, key=seconds.__getitem__)
        cells += [f"{best} {_time(seconds[best])}", _ratio(seconds[best] / ours)]
    else:
        cells += ["-", "-"]
    cells += [_ratio(ours / case["floor_seconds"]), _memory(our_memory)]
    lean = min(memory, key=memory.__getitem__, default=None)
    return [*cells, "-" if lean is None else f"{lean} {_memory(memory[lean])}"]


def table(result: dict[str, Any]) -> str:
    """One run as a markdown table with a line that says on what it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rates = result["rates"]
    lines = [
        f"{result['device']}, {result['date']}; {versions}. Measured at the same time: copies "
        f"{rates['bytes'] / 1e9:.0f} GB/s, float32 products and convolutions {rates['flops'] / 1e9:.0f} GFLOP/s.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
    ]
    lines += ["| " + " | ".join(row(case)) + " |" for case in result["cases"]]
    failures = [f"{case['name']}, {case['size']}: {name} {why}" for case in result["cases"]
                for name, why in case["failures"].items()]  # fmt: skip
    return "\n".join([*lines, *(["", "Did not finish: " + "; ".join(failures) + "."] if failures else [])])


def block(folder: Path = RESULTS) -> str:
    """All runs there are, and what is missing."""
    results = read_results(folder)
    parts = [table(result) for result in results.values()]
    if "gpu" not in results:
        parts.append("No GPU run has been made yet: `make bench` on a CUDA machine adds it.")
    return "\n\n".join(parts)


def with_block(text: str, inside: str) -> str:
    """`text` with everything between the race's markers replaced. ValueError unless both stand once, in order."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"expected {START} and, behind it, {END}, once each")
    return f"{text[: text.index(START)]}{START}\n{inside}\n{text[text.index(END) :]}"
