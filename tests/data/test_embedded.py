"""The committed sets: what they hold, that their splits are disjoint, and that their checksums are kept."""

import pytest
import torch

from sslcore.data import DataFileError, load
from sslcore.data.embedded import stamp_pixels, stamp_table
from sslcore.data.storage import EMBEDDED, checksums
from sslcore.files import sha256


@pytest.mark.parametrize("relative", sorted(checksums()))
def test_checksums_match(relative):
    assert sha256(EMBEDDED / relative) == checksums()[relative]
    assert len(list((EMBEDDED / relative).parent.glob("*.md"))) == 1, "every embedded set carries its licence"


def test_fashion_mnist_is_balanced_and_disjoint():
    splits = {split: load("fashion_mnist", split) for split in ("train", "val", "test")}
    assert [len(s) for s in splits.values()] == [10_000, 1_000, 1_000]
    for s in splits.values():
        assert tuple(s.images.shape[1:]) == (1, 28, 28)
        assert (s.labels.bincount(minlength=10) == len(s) // 10).all()
    seen = [{image.numpy().tobytes() for image in s.images} for s in splits.values()]
    # The original holds a few exact duplicates; what matters is that no index is used twice.
    assert len(seen[0] & seen[2]) < 5 and len(seen[0] & seen[1]) < 5
    means = [splits["train"].images[splits["train"].labels == c].float().mean() for c in (5, 4)]
    assert means[0] < 0.6 * means[1], "sandals are mostly empty, coats are not"


def test_stamps_are_whole():
    pixels = stamp_pixels()
    assert pixels.shape == (258, 4, 96, 96) and pixels.dtype == torch.uint8
    assert (pixels[:, :3] <= pixels[:, 3:]).all(), "premultiplied colour cannot exceed alpha"
    opaque = pixels[:, 3] > 127
    touched = pixels[:, 3] > 0
    longest = torch.maximum(touched.any(1).sum(1), touched.any(2).sum(1))
    assert longest.min() >= 90, "scaled until the longer side fills the tile"
    assert (opaque.flatten(1).float().mean(1) > 0.02).all()


def test_stamp_splits_share_no_kind():
    train, test, everything = (load("stamps", split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (190, 68, 258)
    assert not set(train.extras["ids"].tolist()) & set(test.extras["ids"].tolist())
    kinds = [{noun.split()[-1] for noun in s.extras["nouns"]} for s in (train, test)]
    assert not kinds[0] & kinds[1]


def test_stamp_background_shows_only_behind():
    grey, white = load("stamps", "all"), load("stamps", "all", background=255)
    alpha = grey.extras["alpha"]
    assert (white.images[:, 0][alpha == 0] == 255).all() and (grey.images[:, 0][alpha == 0] == 128).all()
    opaque = (alpha == 255)[:, None].expand_as(grey.images)
    assert torch.equal(white.images[opaque], grey.images[opaque])
    assert torch.equal(grey.masks.bool(), alpha > 127)


def test_nouns_are_usable_in_a_sentence():
    for record in stamp_table():
        for form in (record["noun"], record["plural"]):
            assert form == form.strip() and form and not set(form) & set('.,!?()"“”:;'), record
            assert not form.lower().startswith(("a ", "an ", "the ")), record
        assert record["class"] == record["name"].rpartition("/")[0]


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="fashion_mnist.*scenes.*stamps"):
        load("imagenet-22k")
    with pytest.raises(ValueError, match="test, train, val"):
        load("fashion_mnist", "validation")
    with pytest.raises(ValueError, match="all, test, train"):
        load("stamps", "val")
    with pytest.raises(ValueError, match="test, train, val"):
        load("scenes", "all")
    with pytest.raises(ValueError, match="0..255"):
        load("stamps", background=300)


def test_a_damaged_embedded_file_is_told(tmp_path, monkeypatch):
    (tmp_path / "fashion_mnist").mkdir()
    whole = (EMBEDDED / "fashion_mnist/fashion_mnist.npz").read_bytes()
    (tmp_path / "fashion_mnist/fashion_mnist.npz").write_bytes(whole[:-100])
    (tmp_path / "checksums.json").write_bytes((EMBEDDED / "checksums.json").read_bytes())
    monkeypatch.setattr("sslcore.data.storage.EMBEDDED", tmp_path)
    with pytest.raises(DataFileError, match="build_fashion_mnist"):
        load("fashion_mnist")
