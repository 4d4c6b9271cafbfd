"""Evidence files: what a notebook measured, as JSON that the scoreboard and the prose are checked against.

One file per notebook and scale, `chapters/NN_family/evidence/slug.cpu.json`:

    {"schema": 1, "slug": "vicreg", "scale": "cpu",
     "claims": {"main": {"claim": ..., "treatment": ..., "control": ..., "metric": ..., "margin": ..., "seeds": [...],
                         "values": {arm: [one number a seed]}, "effect": ..., "interval": [low, high], "verdict": ...,
                         "images_seen": ..., "seconds": ..., "device": ..., "versions": {...}, "date": ...}},
     "readouts": {"attention": {"metric": ..., "value": ..., "untrained": ...}, "binding": {...}},
     "numbers": {name: {any nesting of names: a finite number}}}       # optional: what else prose may quote
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sslcore.files import write_text

SCHEMA = 1
SCALES = ("cpu", "gpu")
VERDICTS = ("holds", "opposite", "inconclusive")
READOUTS = ("attention", "binding")

_CLAIM_FIELDS: dict[str, type | tuple[type, ...]] = {
    "claim": str,
    "treatment": str,
    "control": str,
    "metric": str,
    "higher_is_better": bool,
    "margin": (int, float),
    "seeds": list,
    "values": dict,
    "secondary": dict,
    "effect": (int, float),
    "interval": list,
    "verdict": str,
    "images_seen": int,
    "seconds": (int, float),
    "device": str,
    "versions": dict,
    "date": str,
}


class EvidenceError(ValueError):
    """An evidence file that cannot be read or breaks the schema; the message names the file and the field."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise EvidenceError(f"{where}: {message}")


def _check_claim(where: str, claim: Any) -> None:
    _check(isinstance(claim, dict), where, f"expected an object, got {type(claim).__name__}")
    for field, kind in _CLAIM_FIELDS.items():
        _check(field in claim, where, f"field {field!r} is missing")
        _check(isinstance(claim[field], kind), where, f"field {field!r}: got {claim[field]!r}")
    _check(claim["verdict"] in VERDICTS, where, f"verdict {claim['verdict']!r}, expected one of {', '.join(VERDICTS)}")
    _check(_number(claim["effect"]) and _number(claim["margin"]), where, "effect and margin must be finite numbers")
    interval = claim["interval"]
    _check(len(interval) == 2 and all(map(_number, interval)), where, f"interval: expected [low, high], got {interval}")
    _check(interval[0] <= claim["effect"] <= interval[1], where, f"effect {claim['effect']} lies outside {interval}")
    for arm in (claim["treatment"], claim["control"]):
        _check(arm in claim["values"], where, f"values: arm {arm!r} is missing")
    count = len(claim["seeds"])
    for arm, values in claim["values"].items():
        good = isinstance(values, list) and len(values) == count and all(map(_number, values))
        _check(good, where, f"values of {arm!r}: expected {count} finite numbers, got {values}")


def check_evidence(where: str, data: Any) -> None:
    """Raise EvidenceError unless `data` follows the schema; `where` names the file in the message."""
    _check(isinstance(data, dict), where, f"expected a JSON object, got {type(data).__name__}")
    _check(data.get("schema") == SCHEMA, where, f"schema {data.get('schema')!r}, expected {SCHEMA}")
    _check(isinstance(data.get("slug"), str) and bool(data["slug"]), where, "slug is missing")
    _check(data.get("scale") in SCALES, where, f"scale {data.get('scale')!r}, expected one of {', '.join(SCALES)}")
    _check(isinstance(data.get("claims"), dict), where, "claims: expected an object")
    for key, claim in data["claims"].items():
        _check_claim(f"{where}, claim {key!r}", claim)
    readouts = data.get("readouts", {})
    _check(isinstance(readouts, dict), where, "readouts: expected an object")
    for name, readout in readouts.items():
        _check(name in READOUTS, where, f"read-out {name!r}, expected one of {', '.join(READOUTS)}")
        good = isinstance(readout, dict) and isinstance(readout.get("metric"), str) and _number(readout.get("value"))
        _check(good, where, f"read-out {name!r}: expected a metric name and a finite value, got {readout}")
    numbers = data.get("numbers", {})
    _check(isinstance(numbers, dict), where, "numbers: expected an object")
    _check_numbers(f"{where}, numbers", numbers)


def _check_numbers(where: str, value: Any) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(f"{where}.{name}", inner)
    else:
        _check(_number(value), where, f"expected a finite number, got {value!r}")


def evidence_path(folder: str | Path, slug: str, scale: str) -> Path:
    """`folder/slug.scale.json`; an unknown scale raises ValueError."""
    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    return Path(folder) / f"{slug}.{scale}.json"


def load_evidence(path: str | Path) -> dict[str, Any]:
    """Read and validate one evidence file. Raises EvidenceError when it is corrupt or named for another run."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EvidenceError(f"{path.name}: not readable as JSON ({error})") from error
    check_evidence(path.name, data)
    expected = f"{data['slug']}.{data['scale']}.json"
    _check(path.name == expected, path.name, f"the content belongs in {expected}")
    return data


def merge_evidence(folder: str | Path, slug: str, scale: str, *, claims: dict | None = None,
                   readouts: dict | None = None, numbers: dict | None = None) -> Path:
    """Add or replace claims, read-outs and numbers in `folder/slug.scale.json`; other entries stay as they are."""
    path = evidence_path(folder, slug, scale)
    if path.exists():
        data = load_evidence(path)
    else:
        data = {"schema": SCHEMA, "slug": slug, "scale": scale, "claims": {}, "readouts": {}}
    data["claims"].update(claims or {})
    data.setdefault("readouts", {}).update(readouts or {})
    if numbers:
        data.setdefault("numbers", {}).update(numbers)
    check_evidence(path.name, data)
    return write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def find_evidence(chapters: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All evidence under a chapters folder: {(slug, scale): validated content}."""
    found = {}
    for path in sorted(Path(chapters).glob("*/evidence/*.json")):
        data = load_evidence(path)
        found[data["slug"], data["scale"]] = data
    return found
