"""The scoreboard: one row a paper, built from the evidence files and from nothing else.

python -m sslcore.scoreboard                      print it
python -m sslcore.scoreboard --write README.md    replace the block between the scoreboard markers
python -m sslcore.scoreboard --check README.md    exit with 1 if that block is stale
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslcore.evidence import SCALES, find_evidence
from sslcore.files import chapters_folder, write_text
from sslcore.scoreboard_entries import ENTRIES, Entry
from sslcore.validate import unknown

START, END = "<!-- scoreboard:start -->", "<!-- scoreboard:end -->"
_HEADER = ("notebook", "claim in miniature", "verdict", "effect [95 %]", "attention", "binding", "cost")


def find_entry(slug: str) -> Entry | None:
    """The entry of a slug, or None."""
    return next((entry for entry in ENTRIES if entry.slug == slug), None)


def _readout(evidence: dict[str, Any], name: str) -> str:
    readout = evidence.get("readouts", {}).get(name)
    if readout is None:
        return "-"
    controls = [f"{key} {value:.2f}" for key, value in readout.items() if key not in ("metric", "value")]
    behind = f" ({', '.join(controls)})" if controls else ""
    return f"{readout['metric']} {readout['value']:.2f}{behind}"


def _cost(claims: list[dict[str, Any]]) -> str:
    """Images seen and seconds of all claims of one run, and the device."""
    images, seconds = sum(claim["images_seen"] for claim in claims), sum(claim["seconds"] for claim in claims)
    time = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
    seen = f"{images / 1e6:.1f} M images, " if images >= 1e6 else f"{images / 1e3:.0f} k images, " if images else ""
    return f"{seen}{time}, {claims[0]['device']}"


def _row(entry: Entry, evidence: dict[tuple[str, str], dict[str, Any]], chapters: Path, root: str) -> list[str]:
    path = f"{entry.chapter}/{entry.slug}.ipynb"
    built = (chapters / path).exists()
    title = f"[{entry.title}]({root}/{path})" if built else entry.title
    runs = {scale: evidence[entry.slug, scale] for scale in SCALES if (entry.slug, scale) in evidence}
    measured = {scale: run for scale, run in runs.items() if run["claims"]}
    if not measured:
        note = "not built yet" if not built else "not measured yet" if entry.paper else "no claim: a base"
        readouts = [_lines({s: _readout(run, name) for s, run in runs.items()}) for name in ("attention", "binding")]
        return [title, note, "-", "-", *readouts, "-"]
    # Keys in the order of the notebook; a cell has one line for each claim and scale, so lines stay parallel.
    keys = list(dict.fromkeys(key for run in measured.values() for key in run["claims"]))
    claims, verdicts, effects = [], [], []
    for key in keys:
        for scale, run in measured.items():
            if key not in run["claims"]:
                continue
            claim = run["claims"][key]
            if not any(claim["claim"] == said for said in claims):
                claims.append(claim["claim"])
            number = f"{len(claims)}: " if len(keys) > 1 else ""
            low, high = claim["interval"]
            verdicts.append(f"{number}{claim['verdict']} ({scale})")
            effects.append(f"{number}{claim['effect']:+.3f} [{low:+.3f}, {high:+.3f}]")
    numbered = [f"{i}: {claim}" for i, claim in enumerate(claims, 1)] if len(keys) > 1 else claims
    cells = [title, "<br>".join(numbered), "<br>".join(verdicts), "<br>".join(effects)]
    for name in ("attention", "binding"):
        cells.append(_lines({scale: _readout(run, name) for scale, run in measured.items()}))
    return [*cells, _lines({scale: _cost(list(run["claims"].values())) for scale, run in measured.items()})]


def _lines(by_scale: dict[str, str]) -> str:
    """One line a scale; the scale is named when there are two."""
    if len(by_scale) < 2:
        return "".join(by_scale.values()) or "-"
    return "<br>".join(f"{scale}: {text}" for scale, text in by_scale.items())


def _table(entries: list[Entry], evidence: dict, chapters: Path, root: str = "chapters") -> str:
    rows = [_row(entry, evidence, chapters, root) for entry in entries]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in [list(_HEADER), *escaped]]
    return "\n".join([lines[0], "|" + "---|" * len(_HEADER), *lines[1:]])


def scoreboard(chapters: str | Path | None = None) -> str:
    """Two markdown tables, papers then bases: claim, verdict, effect, attention, binding, cost.

    Raises EvidenceError for a corrupt evidence file and for one whose notebook is not in the list.
    """
    chapters = Path(chapters) if chapters is not None else chapters_folder()
    evidence = find_evidence(chapters)
    strange = sorted({slug for slug, _ in evidence} - {entry.slug for entry in ENTRIES})
    if strange:
        raise ValueError(f"evidence for notebooks that are not in the list: {', '.join(strange)}")
    papers = [entry for entry in ENTRIES if entry.paper]
    bases = [entry for entry in ENTRIES if not entry.paper]
    runs = [evidence.get((entry.slug, scale), {}).get("claims", {}) for entry in papers for scale in SCALES]
    verdicts = [claim["verdict"] for claims in runs for claim in claims.values()]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("holds", "inconclusive", "opposite"))
    built = sum(1 for entry in papers if (chapters / entry.chapter / f"{entry.slug}.ipynb").exists())
    summary = f"{built} of {len(papers)} papers have a notebook; claims measured: {counts}."
    return "\n\n".join([summary, _table(papers, evidence, chapters), "Bases:", _table(bases, evidence, chapters)])


def family_table(slugs: Sequence[str], chapters: str | Path | None = None) -> str:
    """The scoreboard's rows of these notebooks, in this order, with links from inside a chapter folder.

    Raises ValueError for a slug that is not in the list, EvidenceError for a corrupt evidence file.
    """
    chapters = Path(chapters) if chapters is not None else chapters_folder()
    entries = []
    for slug in slugs:
        entry = find_entry(slug)
        if entry is None:
            unknown("notebook", slug, [known.slug for known in ENTRIES])
        entries.append(entry)
    return _table(entries, find_evidence(chapters), chapters, "..")


def chapter_map(chapters: str | Path | None = None) -> str:
    """A markdown table with a row a chapter: its notebooks, those that exist as links from inside a chapter folder."""
    chapters = Path(chapters) if chapters is not None else chapters_folder()
    rows: dict[str, list[str]] = {}
    for entry in ENTRIES:
        path = f"{entry.chapter}/{entry.slug}.ipynb"
        built = (chapters / path).exists()
        rows.setdefault(entry.chapter, []).append(f"[{entry.slug}](../{path})" if built else f"*{entry.slug}*")
    lines = [f"| {chapter} | {', '.join(notebooks)} |" for chapter, notebooks in rows.items()]
    return "\n".join(["| chapter | notebooks (in italics: planned) |", "|---|---|", *lines])


def with_block(text: str, block: str) -> str:
    """`text` with everything between the scoreboard markers replaced. Raises ValueError unless both stand once."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"expected {START} and, behind it, {END}, once each")
    before, after = text[: text.index(START)], text[text.index(END) :]
    return f"{before}{START}\n{block}\n{after}"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sslcore.scoreboard")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, metavar="FILE", help="replace the scoreboard block of FILE")
    what.add_argument("--check", type=Path, metavar="FILE", help="fail if the scoreboard block of FILE is stale")
    chosen = parser.parse_args(arguments)
    board = scoreboard()
    if chosen.write is None and chosen.check is None:
        print(board)
        return 0
    path = chosen.write or chosen.check
    text = path.read_text(encoding="utf-8")
    fresh = with_block(text, board)
    if chosen.write is not None:
        write_text(path, fresh)
        return 0
    if fresh != text:
        print(f"{path}: the scoreboard is stale; run python -m sslcore.scoreboard --write {path}")
    return int(fresh != text)


if __name__ == "__main__":
    sys.exit(main())
