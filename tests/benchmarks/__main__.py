"""The race: ours beside lightly, plain torch, torch.compile, torchvision and kornia, in one process.

python -m tests.benchmarks                      run on the GPU if there is one, else on the CPU; print; write results/
python -m tests.benchmarks --only nt_xent views run some rows and print them, write nothing
python -m tests.benchmarks --write README.md    replace the block between the race's markers; runs nothing
python -m tests.benchmarks --check README.md    exit with 1 if that block is stale; runs nothing

Times are medians of a forward and backward pass. The floor is the time for the bytes that must move or the products
that must be made, whichever is longer, at the rates this machine reached in the same run.
"""

from __future__ import annotations

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter

import argparse
import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sslcore.experiment import run_facts
from sslcore.files import write_text
from tests.benchmarks.cases import BUILDERS, Case, cases
from tests.benchmarks.measure import machine_rates, median, peak_bytes, race
from tests.benchmarks.table import HEADER, RESULTS, block, row, table, with_block

COMPILE_UNTIL = 240.0  # seconds of a run after which nothing new is compiled: a GPU run should end within 8 minutes
PEERS = ("lightly", "torchvision", "kornia", "triton")


def _versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_agreement(case: Case) -> None:
    """A race between different results would mean nothing."""
    if case.tolerance is None:
        return
    values = {name: float(value().detach()) for name, value in case.values.items()}
    for name, value in values.items():
        if abs(value - values["ours"]) > case.tolerance * abs(values["ours"]):
            raise AssertionError(f"{case.name} {case.size}: {name} gives {value}, ours {values['ours']}")


def run_case(case: Case, device: torch.device, rates: dict[str, float], budget: float, rounds: int) -> dict[str, Any]:
    """Times, memory and floor of one row."""
    _check_agreement(case)
    failures, running, memory = {}, {}, {}
    for name, contender in case.contenders.items():
        try:
            contender()
            if case.leaves:  # pictures are not torch's, so its count would mislead where there are any
                for leaf in case.leaves:
                    leaf.grad = None
                memory[name] = peak_bytes(contender, device)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            failures[name] = "ran out of memory" if "out of memory" in str(error) else type(error).__name__
            if name == "ours":
                raise
        else:
            running[name] = contender
    times = race(running, device, budget, rounds)
    return {
        "name": case.name,
        "size": case.size,
        "seconds": {name: median(values) for name, values in times.items()},
        "rounds": {name: len(values) for name, values in times.items()},
        "peak_bytes": memory,
        "floor_bytes": case.num_bytes,
        "floor_flops": case.num_flops,
        "floor_seconds": max(case.num_bytes / rates["bytes"], case.num_flops / rates["flops"]),
        "failures": failures,
    }


def run(
    scale: str, device: torch.device, names: list[str] | None = None, budget: float = 1.0, rounds: int = 50
) -> dict[str, Any]:
    """All rows of a scale, printed as they come. Returns what goes into the result file."""
    start = time.perf_counter()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")  # TF32 for all, as in training
    rates = machine_rates(device, quick=scale == "tiny")
    print(" | ".join(HEADER))
    rows = []
    for case in cases(scale, device, names):
        if time.perf_counter() - start > COMPILE_UNTIL:
            case.contenders.pop("torch.compile", None)
        rows.append(run_case(case, device, rates, budget, rounds))
        print(" | ".join(row(rows[-1])), flush=True)
    facts = run_facts(device)
    facts["versions"] |= _versions()
    return {**facts, "rates": rates, "seconds": time.perf_counter() - start, "cases": rows}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Race the objectives and views.")
    parser.add_argument("--only", nargs="+", choices=list(BUILDERS), metavar="NAME", help="some rows; writes nothing")
    parser.add_argument("--scale", choices=("tiny", "cpu", "gpu"), help="sizes; default: those of the device")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, metavar="FILE", help="replace the race's block of FILE")
    what.add_argument("--check", type=Path, metavar="FILE", help="fail if the race's block of FILE is stale")
    chosen = parser.parse_args(arguments)
    path = chosen.write or chosen.check
    if path is not None:
        text = path.read_text(encoding="utf-8")
        fresh = with_block(text, block(chosen.results))
        if chosen.write:
            write_text(path, fresh)
            return 0
        if fresh != text:
            print(f"{path}: the race's table is stale; run python -m tests.benchmarks --write {path}")
        return int(fresh != text)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = chosen.scale or ("gpu" if device.type == "cuda" else "cpu")
    tiny = scale == "tiny"
    result = run(scale, device, chosen.only, *((0.0, 3) if tiny else ()))
    print(f"\n{table(result)}\n\n{result['seconds']:.0f} s in all")
    if chosen.only is None and not tiny:
        write_text(chosen.results / f"{scale}.json", json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
