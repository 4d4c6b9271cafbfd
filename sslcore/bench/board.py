"""The board: one row a network, one column a probe, and how alike the networks are."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcore.bench.cache import cached_readings
from sslcore.bench.columns import COLUMNS
from sslcore.bench.networks import Network, ready
from sslcore.bench.relations import Relation, relate
from sslcore.files import write_text
from sslcore.probes.cka import cka_matrix
from sslcore.probes.network_report import Readings, ReportSets, Sizes, pixel_scores, report_sets, score_networks
from sslcore.probes.same_object import BindingReport
from sslcore.validate import require, unknown


@dataclass(repr=False)
class Leaderboard:
    """rows: network -> column -> number (missing where a probe does not apply); curves: network -> binding by layer;
    cka: (n, n) alikeness of the networks in `cka_names`; controls: names of untrained rows; skipped: network -> probe
    -> reason; failed: network -> error; facts: sizes, seconds."""

    rows: dict[str, dict[str, float | int | str]]
    curves: dict[str, BindingReport]
    cka_names: list[str]
    cka: Tensor
    controls: list[str]
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def networks(self) -> list[str]:
        """Rows that are networks with training, in order."""
        return [name for name in self.rows if name not in self.controls and name != "pixels"]

    def column(self, key: str, names: Sequence[str] | None = None) -> dict[str, float]:
        """{network: number} of one column, those without it left out. ValueError for a column no row has."""
        if key not in COLUMNS and not any(key in row for row in self.rows.values()):
            unknown("column", key, COLUMNS)
        chosen = self.networks if names is None else names
        return {name: float(self.rows[name][key]) for name in chosen if key in self.rows[name]}

    def sorted_names(self, by: str = "binding", descending: bool = True) -> list[str]:
        """All rows by one column; rows without it come last."""
        values = self.column(by, list(self.rows))
        return sorted(self.rows, key=lambda n: (n not in values, -values.get(n, 0) if descending else values.get(n, 0)))

    def table(
        self,
        by: str = "binding",
        descending: bool = True,
        columns: Sequence[str] | None = None,
        style: str = "text",
    ) -> str:
        """Rows sorted by a column. columns: default all that any row has. style: "text" or "markdown"."""
        if style not in ("text", "markdown"):
            unknown("table style", style, ("text", "markdown"))
        have = {key for row in self.rows.values() for key in row}
        keys = [key for key in (COLUMNS if columns is None else columns) if key in have]
        head = ["network", *(COLUMNS[key].title if key in COLUMNS else key for key in keys)]
        names = self.sorted_names(by, descending)
        body = [[name, *(shown(key, self.rows[name].get(key)) for key in keys)] for name in names]
        if style == "markdown":
            lines = ["| " + " | ".join(row) + " |" for row in [head, *body]]
            lines.insert(1, "|---|" + "---:|" * len(keys))
            return "\n".join(lines)
        widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
        lines = []
        for row in [head, *body]:
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def comparable(self, x: str, y: str) -> bool:
        """Whether two columns have a rank correlation: four trained networks with both, and values that differ."""
        first, second = self.column(x), self.column(y)
        both = [name for name in first if name in second]
        return len(both) >= 4 and all(len({column[name] for name in both}) > 1 for column in (first, second))

    def relation(self, x: str, y: str, seed: int = 0) -> Relation:
        """Rank correlation of two columns over the trained networks that have both."""
        first, second = self.column(x), self.column(y)
        both = [name for name in first if name in second]
        errors = self.errors(x, both), self.errors(y, both)
        return relate([first[name] for name in both], [second[name] for name in both], errors, seed=seed)

    def errors(self, key: str, names: Sequence[str]) -> list[float]:
        """Standard errors of one column: binding from its interval, shares from the number of test images, else 0."""
        rows = [self.rows[name] for name in names]
        if key == "binding":
            return [(row["binding_high"] - row["binding_low"]) / 3.92 for row in rows]
        probe, _, rest = key.partition("_")
        counted = "singles" if key in ("lost", "tokencut") else rest if probe in ("knn", "linear", "attentive") else ""
        count = self.facts.get("test_images", {}).get(counted)
        return [math.sqrt(row[key] * (1 - row[key]) / count) if count else 0.0 for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return {
            "rows": self.rows,
            "binding": {name: curve.as_dict() for name, curve in self.curves.items()},
            "cka": {"names": self.cka_names, "matrix": [[round(v, 4) for v in row] for row in self.cka.tolist()]},
            "controls": self.controls,
            "skipped": self.skipped,
            "failed": self.failed,
            "facts": self.facts,
        }

    def save(self, path: str | Path) -> Path:
        """Write everything as .json, or the rows and the CKA matrix as .csv; aside and renamed. Returns the path."""
        path = Path(path)
        if path.suffix == ".json":
            return write_text(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")
        require(path.suffix == ".csv", f"out: expected a name ending in .json or .csv, got {path.name}")
        keys = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        alike = {name: row for name, row in zip(self.cka_names, self.cka.tolist(), strict=True)}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["network", *keys, *(f"cka {name}" for name in self.cka_names)])
        for name, row in self.rows.items():
            cells = [f"{value:.4f}" for value in alike.get(name, [])] or [""] * len(self.cka_names)
            writer.writerow([name, *(row.get(key, "") for key in keys), *cells])
        return write_text(path, text.getvalue())

    def __repr__(self) -> str:
        return self.table()


def shown(key: str, value: float | int | str | None) -> str:
    """One cell: rounded as the column says, "-" where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.{COLUMNS[key].digits if key in COLUMNS else 3}f}"


def photo_features(readings: Readings, row: dict) -> Tensor | None:
    """Pooled features of all photos as the row's probes read them; None for a network that gave none."""
    if "pool_photos" not in row:
        return None
    kind = row["pool_photos"]
    return torch.cat([readings.tensors[f"photos_{split}_{kind}"] for split in ("train", "val", "test")])


def run_bench(
    networks: Sequence[Network],
    sizes: Sizes | str = "standard",
    cache: str | Path | None = None,
    say: Callable[[str], object] = print,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Leaderboard:
    """Read every network once (or take its readings from the cache), then probe them all.

    networks: see find_networks. sizes: see report_sets; all networks see the same scenes, each at its own size,
    on `device`; the probes run on the CPU.
    A network that cannot be loaded or read is named in `failed`, and the others go on. Raises ValueError when none is
    left, or for two networks of one name.
    """
    names = [network.name for network in networks]
    require(len(set(names)) == len(names), f"networks: expected different names, got {names}")
    begin = time.perf_counter()
    sets: dict[int, ReportSets] = {}
    read: dict[int, dict[str, Readings]] = {}
    failed: dict[str, str] = {}
    from_cache = 0
    for network in networks:
        start = time.perf_counter()
        try:
            backbone, size = ready(network, device)
            if size not in sets:
                sets[size] = report_sets(size, sizes)
            readings, found = cached_readings(backbone, sets[size], cache, network.architecture, say)
        except (ValueError, FileNotFoundError) as error:
            failed[network.name] = str(error)
            say(f"{network.name}: left out: {error}")
            continue
        from_cache += found
        read.setdefault(size, {})[network.name] = readings
        say(f"{network.name}: {'from the cache' if found else 'read'} in {time.perf_counter() - start:.1f} s")
    require(len(read) > 0, f"networks: none could be read: {failed}")
    reading_seconds = time.perf_counter() - begin
    rows, curves, skipped = {}, {}, {}
    for size, group in read.items():
        twins = {n.name: n.control for n in networks if n.name in group and n.control in group}
        more_rows, more_curves = score_networks(group, sets[size], twins, seed)
        rows, curves = rows | more_rows, curves | more_curves
        skipped |= {name: readings.skipped for name, readings in group.items() if readings.skipped}
    rows = {network.name: {**rows[network.name], **network.facts} for network in networks if network.name in rows}
    everything = {name: readings for group in read.values() for name, readings in group.items()}
    features = {name: photo_features(everything[name], row) for name, row in rows.items()}
    features = {name: value for name, value in features.items() if value is not None}
    alike = cka_matrix(list(features.values()), unbiased=True)
    rows["pixels"] = pixel_scores(next(iter(sets.values())))
    controls = [network.name for network in networks if network.control is None and network.name in rows
                and any(other.control == network.name for other in networks)]  # fmt: skip
    seconds = {"reading": round(reading_seconds, 2), "probing": round(time.perf_counter() - begin - reading_seconds, 2)}
    some = next(iter(sets.values()))
    labelled = {name: len(part["test"]) for name, part in vars(some).items() if isinstance(part, dict) and part}
    facts = {"test_images": labelled, "sizes": vars(some.sizes), "seconds": seconds, "from_cache": from_cache}
    facts |= {"img_sizes": sorted(sets), "threads": torch.get_num_threads()}
    return Leaderboard(rows, curves, list(features), alike, controls, skipped, failed, facts)
