"""Who made each image, under which licence, from where; and which images have been taken back since."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from sslcore.data.embedded import stamp_ids, stamp_pixels, stamp_table
from sslcore.data.imageset import ImageSet
from sslcore.validate import require

FIELDS = ("id", "sha256", "author", "licence", "source")


def image_hash(image: Tensor) -> str:
    """SHA-256 of one image (C, H, W) uint8: its shape, then its bytes in that order."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + image.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, repr=False)
class Manifest:
    """One record an image, in the order of the set, and the ids that were withdrawn.

    records: dicts of strings with at least FIELDS; "" says that something is not known. A withdrawn image keeps its
    record, the tombstone, so that a later version cannot bring it back unnoticed; `keep` leaves it out of a set.
    Raises ValueError for a record without one of FIELDS, repeated ids, or a withdrawn id that has no record.
    """

    records: tuple[dict[str, str], ...]
    withdrawn: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for number, record in enumerate(self.records):
            lacking = [name for name in FIELDS if not isinstance(record.get(name), str)]
            require(not lacking, f"records: expected text for {', '.join(FIELDS)}; record {number} lacks {lacking}")
        ids = Counter(record["id"] for record in self.records)
        repeated = [name for name, count in ids.items() if count > 1]
        require(not repeated, f"records: expected different ids, got {repeated[:3]} more than once")
        unknown = sorted(self.withdrawn - set(ids))
        require(not unknown, f"withdrawn: expected ids of the manifest, got {unknown[:3]}")

    def __len__(self) -> int:
        return len(self.records) - len(self.withdrawn)

    def withdraw(self, ids: Iterable[str]) -> Self:
        """The next version, without these ids. Raises ValueError for an id that is not there."""
        return replace(self, withdrawn=self.withdrawn | frozenset(ids))

    def keep(self, data: ImageSet, verify: bool = False) -> ImageSet:
        """What of the set has not been withdrawn. verify: compare every image with its hash first.

        Raises ValueError where the set has another length than the manifest, or an image has changed.
        """
        count = len(self.records)
        require(len(data) == count, f"data: expected {count} images, one a record, got {len(data)}")
        if verify:
            pairs = zip(self.records, data.images, strict=True)
            changed = [record["id"] for record, image in pairs if image_hash(image) != record["sha256"]]
            require(not changed, f"data: {len(changed)} images differ from their hash, the first is {changed[:1]}")
        return data.subset([i for i, record in enumerate(self.records) if record["id"] not in self.withdrawn])

    def missing(self) -> dict[str, int]:
        """{field: number of living records that do not know it}."""
        alive = [record for record in self.records if record["id"] not in self.withdrawn]
        return {name: sum(not record[name] for record in alive) for name in FIELDS}

    def table(self) -> str:
        """Attribution as aligned text: images, licence and author, the largest group first; then what is missing."""
        alive = (record for record in self.records if record["id"] not in self.withdrawn)
        groups = Counter((record["licence"] or "unknown", record["author"] or "unknown") for record in alive)
        lines = [f"{'images':>6}  {'licence':<18}author"]
        lines += [f"{count:>6}  {licence:<18}{author}" for (licence, author), count in groups.most_common()]
        lacking = ", ".join(f"{name} of {count}" for name, count in self.missing().items() if count)
        lines.append(f"missing: {lacking or 'nothing'}; withdrawn: {len(self.withdrawn)}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The manifest as text; `from_json` reads it back."""
        return json.dumps({"withdrawn": sorted(self.withdrawn), "records": self.records}, ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what to_json wrote. Raises ValueError for anything else."""
        data = json.loads(text)
        good = isinstance(data, dict) and isinstance(data.get("records"), list)
        require(good, "text: expected an object with records and withdrawn, as to_json writes it")
        return cls(tuple(data["records"]), frozenset(data.get("withdrawn", ())))


def stamp_manifest(split: str = "all") -> Manifest:
    """Manifest of `load_stamps(split)`. The hash covers the cut-out itself (4, 96, 96): no ground is mixed in.

    The package names its contributors as a group, so that is the author of every stamp: who took which photograph is
    not recorded, and no address of an original is.
    """
    pixels, table = stamp_pixels(), stamp_table()
    shared = {"author": "Bill Kendrick and the Tux Paint contributors", "licence": "GPL-2.0-or-later"}
    records = []
    for number in stamp_ids(split).tolist():
        name = table[number]["name"]
        source = f"tuxpaint-stamps-default 2022.06.04-1, {name}.png"
        records.append({"id": name, "sha256": image_hash(pixels[number]), **shared, "source": source})
    return Manifest(tuple(records))
