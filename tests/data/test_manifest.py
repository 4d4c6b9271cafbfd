"""The manifest: attribution of every image, tombstones that travel, hashes that notice a changed pixel."""

from __future__ import annotations

import pytest
import torch

from sslcore.data import ImageSet, load
from sslcore.data.manifest import FIELDS, Manifest, image_hash, stamp_manifest


def small():
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    records = tuple(
        {"id": f"p{i}", "sha256": image_hash(image), "author": ["Ann", "Ann", "", "Bo"][i], "licence": "CC-BY-4.0",
         "source": f"https://example.org/{i}"}
        for i, image in enumerate(images)
    )  # fmt: skip
    return Manifest(records), ImageSet("photos", "train", images, labels=torch.arange(4))


def test_a_withdrawn_image_leaves_the_loader_and_keeps_its_record():
    manifest, photos = small()
    later = manifest.withdraw(["p1"])
    assert len(manifest) == 4 and len(later) == 3 and len(later.records) == 4
    assert later.keep(photos).labels.tolist() == [0, 2, 3]
    assert later.withdraw(["p3"]).keep(photos, verify=True).labels.tolist() == [0, 2]
    assert manifest.keep(photos).labels.tolist() == [0, 1, 2, 3]


def test_text_round_trip():
    manifest, photos = small()
    later = manifest.withdraw(["p0"])
    again = Manifest.from_json(later.to_json())
    assert again == later and again.keep(photos).labels.tolist() == [1, 2, 3]


def test_a_changed_pixel_is_noticed():
    manifest, photos = small()
    photos.images[2, 0, 0, 0] += 1
    assert len(manifest.keep(photos)) == 4
    with pytest.raises(ValueError, match=r"1 images differ from their hash, the first is \['p2'\]"):
        manifest.keep(photos, verify=True)
    assert image_hash(torch.zeros(3, 2, 4, dtype=torch.uint8)) != image_hash(torch.zeros(3, 4, 2, dtype=torch.uint8))


def test_the_table_counts_and_names_what_is_missing():
    manifest, _ = small()
    lines = manifest.table().splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["2", "CC-BY-4.0", "Ann"], ["1", "CC-BY-4.0", "unknown"], ["1", "CC-BY-4.0", "Bo"]
    ]  # fmt: skip
    assert lines[-1] == "missing: author of 1; withdrawn: 0"
    assert manifest.withdraw(["p2"]).table().endswith("missing: nothing; withdrawn: 1")
    assert manifest.missing() == {"id": 0, "sha256": 0, "author": 1, "licence": 0, "source": 0}


def test_every_stamp_is_attributed():
    manifest = stamp_manifest()
    assert len(manifest) == 258 and not any(manifest.missing().values())
    assert all(set(FIELDS) <= set(record) for record in manifest.records)
    assert len({record["sha256"] for record in manifest.records}) == 258
    train = stamp_manifest("train")
    assert len(train.keep(load("stamps", "train"))) == 190
    assert "258  GPL-2.0-or-later" in manifest.table()


def test_bad_input_is_refused():
    manifest, photos = small()
    with pytest.raises(ValueError, match=r"withdrawn: expected ids of the manifest, got \['p9'\]"):
        manifest.withdraw(["p9"])
    with pytest.raises(ValueError, match=r"record 0 lacks \['source'\]"):
        Manifest(({name: "x" for name in FIELDS[:-1]},))
    with pytest.raises(ValueError, match=r"expected different ids, got \['p0'\] more than once"):
        Manifest((manifest.records[0], manifest.records[0]))
    with pytest.raises(ValueError, match="expected 4 images, one a record, got 3"):
        manifest.keep(photos.subset([0, 1, 2]))
    with pytest.raises(ValueError, match="expected an object with records"):
        Manifest.from_json("[]")
