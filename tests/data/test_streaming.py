"""Sets on disk: every image found, decoded as torchvision would, hostile or damaged files told by name or counted."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from write_shards import encoded, write_shards, write_tar
from write_shards import main as write_shards_command

from sslcore.data import DataFileError, ImageStream, load, stream_images
from sslcore.data.decoding import decode_image
from sslcore.data.image_index import ImageIndex, index_shards

STAMPS = load("stamps").subset(slice(0, 40))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_shards(STAMPS, tmp_path_factory.mktemp("shards"), per_shard=16)


def one_shard(path: Path, *members: tuple[str, bytes]) -> Path:
    write_tar(path, iter(members))
    return path


def picture(width: int = 5, height: int = 3, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A ramp from left to right."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    buffer = io.BytesIO()
    Image.fromarray(ramp).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def test_shards_give_the_images_and_labels_they_were_made_from(shards: list[Path]):
    stream = stream_images(shards[0].parent, img_size=96)
    assert len(shards) == 3 and len(stream) == 40 and torch.equal(stream.labels, STAMPS.labels)
    whole = stream.in_memory()
    assert torch.equal(whole.images, STAMPS.images) and torch.equal(whole.labels, STAMPS.labels)
    assert torch.equal(stream[17].image, STAMPS.images[17]) and stream[17].index == 17
    assert repr(stream) == f"ImageStream({shards[0].parent.name}: 40 images of 96 px, 3 shards, labels)"


def test_list_and_pattern_open_the_same_set(shards: list[Path]):
    pattern = stream_images(str(shards[0].parent / "train-*.tar"), img_size=96)
    listed = stream_images(shards, img_size=96)
    assert np.array_equal(pattern.index.start, listed.index.start) and len(pattern) == 40


def test_written_shards_are_the_same_bytes_each_time(shards: list[Path], tmp_path: Path):
    again = write_shards(STAMPS, tmp_path, per_shard=16)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in shards]


def test_folder_of_classes_is_read_as_torchvision_does(tmp_path: Path):
    from torchvision.datasets import ImageFolder

    for row in range(9):
        place = tmp_path / "train" / f"class{STAMPS.labels[row]}" / "deeper"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row}.png").write_bytes(encoded(STAMPS, row))
    stream, peer = stream_images(tmp_path, split="train", img_size=96), ImageFolder(tmp_path / "train")
    assert stream.classes == peer.classes and stream.labels.tolist() == peer.targets
    for row in range(9):
        assert np.array_equal(stream[row].image.permute(1, 2, 0).numpy(), np.array(peer[row][0]))


def test_folder_of_images_has_no_labels(tmp_path: Path):
    for name in ("b.JPEG", "a.png"):
        (tmp_path / name).write_bytes(picture(kind="JPEG" if name.endswith("JPEG") else "PNG"))
    (tmp_path / "notes.txt").write_text("no image")
    stream = stream_images(tmp_path, img_size=4, channels=1)
    assert len(stream) == 2 and stream.labels is None and stream.index.name(0).endswith("a.png")
    assert stream.in_memory().images.shape == (2, 1, 4, 4)
    assert repr(stream).endswith("folder, no labels)")


def test_square_is_cut_from_the_longer_side_where_told():
    wide = picture(width=60, height=20)
    left, middle, right = (decode_image(wide, 10, place=place).float().mean() for place in (0.0, 0.5, 1.0))
    assert left < 50 and abs(middle - 127) < 3 and right > 205
    assert decode_image(picture(20, 60), 10).shape == (3, 10, 10)
    assert decode_image(picture(mode="L"), 8).shape == (3, 8, 8)


def test_scaling_down_agrees_with_torchvision():
    from torchvision.transforms.v2 import functional as peer

    image = STAMPS.images[3]
    expected = peer.resize(image, [40, 40], antialias=True)
    difference = (decode_image(encoded(STAMPS, 3), 40).int() - expected.int()).abs()
    assert difference.max() <= 1  # PIL rounds between the two directions


def test_large_jpeg_decoded_at_a_fraction_is_the_same_picture():
    ramp = picture(width=640, height=320, kind="JPEG")
    with Image.open(io.BytesIO(ramp)) as image:
        expected = np.array(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, box=(160, 0, 480, 320)))
    got = decode_image(ramp, 32).permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - expected).max() <= 3


def test_order_visits_all_and_mixes_shards_within_windows(shards: list[Path]):
    stream = stream_images(shards, img_size=8, window=1)
    order = stream.order(0)
    assert sorted(order.tolist()) == list(range(40)) and np.array_equal(order, stream.order(0))
    assert not np.array_equal(order, stream.order(1))
    runs = 1 + np.count_nonzero(np.diff(stream.index.file[order]))
    assert runs == 3  # one shard after another
    mixed = stream_images(shards, img_size=8, window=3)
    assert 1 + np.count_nonzero(np.diff(mixed.index.file[mixed.order(0)])) > 10
    first = {int(stream.index.file[stream.order(seed)[0]]) for seed in range(20)}
    assert first == {0, 1, 2}


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), window=st.integers(1, 4))
def test_order_is_a_permutation_that_reads_few_shards_at_a_time(sizes: list[int], window: int):
    file = np.repeat(np.arange(len(sizes)), sizes)
    names = np.array([f"{number}.tar".encode() for number in range(len(sizes))])
    index = ImageIndex(names, file, file, file, None, None, sharded=True)
    order = ImageStream(index, window=window).order(3)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    visits = file[order]
    open_at = [len({*visits[:at]} & {*visits[at:]}) for at in range(len(visits))]
    assert max(open_at) <= window  # a shard begun and not ended


def test_command_writes_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    words = ["--split", "test", "--per-shard", "50", "--kind", "jpeg"]
    monkeypatch.setattr("sys.argv", ["write_shards.py", "stamps", str(tmp_path / "out"), *words])
    write_shards_command()
    assert "wrote 68 images to 2 shards" in capsys.readouterr().out
    lossy = stream_images(tmp_path / "out", img_size=96)
    difference = (lossy.in_memory([0]).images.float() - load("stamps", "test").images[:1].float()).abs()
    assert len(lossy) == 68 and difference.mean() < 5


def test_random_cut_moves_from_epoch_to_epoch(shards: list[Path]):
    stream = stream_images(shards, img_size=8, crop="random")
    assert not np.array_equal(stream.places(0), stream.places(1))
    assert (stream_images(shards, img_size=8).places(0) == 0.5).all()


def test_stream_travels_to_worker_processes(shards: list[Path]):
    stream = stream_images(shards, img_size=8)
    again = pickle.loads(pickle.dumps(stream))
    assert torch.equal(again[5].image, stream[5].image)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", picture()[:-30], picture(kind="JPEG")[:200], picture(kind="GIF"), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    ids=["empty", "text", "cut png", "cut jpeg", "gif", "eps"],
)
def test_what_cannot_be_decoded_is_told_by_name_or_skipped(tmp_path: Path, content: bytes):
    path = one_shard(tmp_path / "s.tar", ("a.png", picture()), ("b.png", content), ("c.png", picture(4, 4)))
    stream = stream_images(path, img_size=4)
    with pytest.raises(DataFileError, match=r"s\.tar at byte \d+: expected an image, could not decode its"):
        stream[1]
    lenient = stream_images(path, img_size=4, on_error="skip")
    row = lenient[1]
    assert row.index == 2 and torch.equal(row.image, lenient[2].image) and "at byte" in row.errors[0]
    assert lenient.in_memory([0, 1]).images.shape == (2, 3, 4, 4)
    assert sum(lenient.skipped.values()) == 1


def test_picture_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sslcore.data.decoding.LARGEST_IMAGE", 14)
    with pytest.raises(DataFileError, match=r"expected at most 14 pixels, got \(5, 3\)"):
        decode_image(picture(), 4)


def test_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    size = len(picture())
    monkeypatch.setattr("sslcore.data.image_index.LARGEST_FILE", size - 1)
    with pytest.raises(DataFileError, match=f"refused member 'a.png': {size} bytes"):
        stream_images(one_shard(tmp_path / "s.tar", ("a.png", picture())), img_size=4)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(picture())
    stream = stream_images(tmp_path / "folder", img_size=4)
    with pytest.raises(DataFileError, match=rf"a\.png: expected at most {size - 1} bytes, got {size}"):
        stream[0]


def test_set_with_nothing_readable_is_given_up(tmp_path: Path):
    path = one_shard(tmp_path / "s.tar", ("a.png", b"x"), ("b.png", b"y"))
    with pytest.raises(DataFileError, match="could not decode.*so are the 63 after it"):
        stream_images(path, img_size=4, on_error="skip")[0]


def test_shard_cut_short_is_refused_or_used_as_far_as_it_goes(shards: list[Path], tmp_path: Path):
    content, cut = shards[0].read_bytes(), tmp_path / "cut.tar"
    whole = index_shards([shards[0]])
    ends = {
        "in a header": int(whole.start[5]) - 300,
        "in an image": int(whole.start[5]) + 10,
        "between members": int(whole.start[5]) - 512,
        "before the end mark": len(content.rstrip(b"\0")) // 512 * 512 + 512,
    }
    for place, end in ends.items():
        cut.write_bytes(content[:end])
        with pytest.raises(DataFileError, match=r"cut\.tar: expected a whole uncompressed tar archive"):
            stream_images(cut, img_size=96)
        lenient = stream_images(cut, img_size=96, on_error="skip")
        kept = {"in an image": 5, "before the end mark": 15}.get(place, 4)  # the last sample seen is never trusted
        assert len(lenient) == kept and torch.equal(lenient.in_memory().images, STAMPS.images[:kept]), place
        assert len(lenient.skipped) == 1
    cut.write_bytes(b"")
    with pytest.raises(DataFileError, match="empty file"):
        stream_images(cut, img_size=96)


def test_shard_that_shrank_after_opening_is_told(shards: list[Path], tmp_path: Path):
    path = tmp_path / "s.tar"
    path.write_bytes(shards[0].read_bytes())
    stream = stream_images(path, img_size=96)
    path.write_bytes(shards[0].read_bytes()[: int(stream.index.start[3]) + 7])
    with pytest.raises(DataFileError, match=r"expected \d+ bytes, got 7; the shard has changed"):
        stream[3]
    path.unlink()
    with pytest.raises(DataFileError, match="cannot be read"):
        stream[0]


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../a.png", "a/../../b.png", "a\\b.png", "C:a.png"])
def test_member_that_leaves_the_archive_is_refused(tmp_path: Path, name: str):
    path = one_shard(tmp_path / "s.tar", ("fine.png", picture()), (name, picture()))
    for on_error in ("raise", "skip"):  # nobody writes such a name by accident
        with pytest.raises(DataFileError, match="refused member .* its path leaves the archive"):
            stream_images(path, img_size=4, on_error=on_error)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DataFileError, match="neither a plain file nor a folder"):
        stream_images(path, img_size=4)


@pytest.mark.parametrize(
    "members, told",
    [
        ([("a.cls", b"1")], "expected an image .* in sample 'a', found none"),
        ([("a.png", picture()), ("a.jpg", picture())], "expected one image a sample, got two for /a"),
        ([("a.png", picture()), ("a.cls", b"cat")], "a.cls: expected a whole number as label"),
        ([("a.png", picture()), ("a.json", b"{")], "a.json: expected a whole number as label"),
        ([("a.png", picture()), ("a.cls", b"1"), ("b.png", picture())], "labels for all samples or none, got 1 of 2"),
    ],
)
def test_odd_samples_are_refused(tmp_path: Path, members: list, told: str):
    with pytest.raises(DataFileError, match=told):
        stream_images(one_shard(tmp_path / "s.tar", *members), img_size=4)


def test_labels_from_json_and_members_beside_them(tmp_path: Path):
    first = [("d/a.seg.png", picture()), ("d/a.json", b'{"label": 3}'), ("d/a.txt", b"a ramp")]
    path = one_shard(tmp_path / "s.tar", *first, ("d/b.jpg", picture()), ("d/b.json", b'{"label": 1, "more": []}'))
    assert stream_images(path, img_size=4).labels.tolist() == [3, 1]
    bare = one_shard(tmp_path / "t.tar", ("a.png", picture()), ("a.json", b"{}"))
    assert stream_images(bare, img_size=4).labels is None


def test_compressed_shard_is_refused(shards: list[Path], tmp_path: Path):
    import gzip

    path = tmp_path / "s.tar"
    path.write_bytes(gzip.compress(shards[0].read_bytes()))
    with pytest.raises(DataFileError, match="expected a whole uncompressed tar archive"):
        stream_images(path, img_size=4)


def test_what_is_not_there_and_wrong_settings(tmp_path: Path, shards: list[Path]):
    with pytest.raises(FileNotFoundError, match="nothing is there"):
        stream_images(tmp_path / "none-*.tar")
    with pytest.raises(FileNotFoundError, match="expected shards, not there"):
        stream_images([tmp_path / "none.tar"])
    with pytest.raises(ValueError, match="expected images .* found none"):
        stream_images(tmp_path)
    for settings, told in (
        ({"img_size": 0}, "img_size: expected a side above 0"),
        ({"channels": 4}, "channels: expected 1 or 3"),
        ({"crop": "corner"}, "unknown crop 'corner'; known: center, random"),
        ({"on_error": "ignore"}, "unknown on_error 'ignore'; known: raise, skip"),
        ({"workers": -1}, "workers >= 0"),
    ):
        with pytest.raises(ValueError, match=told):
            stream_images(shards, **settings)
