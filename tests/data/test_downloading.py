"""Downloads go on where they stopped, trust only their checksum, and archives can touch nothing. No internet needed."""

import hashlib
import io
import pickle
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import download as script
import numpy as np
import pytest
import torch
from fetching import download, members
from restricted_pickle import load_arrays

from sslcore.data import DataFileError, load
from sslcore.data.downloaded import CLASSES, IMAGENETTE_FOLDERS, array_file

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A file server that notes the ranges asked for and can hang up early or ignore ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state = self.server.state
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if state["ranges"] else 0
            state["asked"].append(start)
            if state["status"] != 200:
                return self.send_error(state["status"])
            if start >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start : state["cut"]])

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.state = {"asked": [], "cut": None, "ranges": True, "status": 200}
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running.state, f"http://127.0.0.1:{running.server_port}/file"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_broken_download_goes_on(server, tmp_path):
    state, url = server
    state["cut"] = 100_000
    with pytest.raises(SystemExit, match=r"100,000 bytes are kept.*--archive"):
        download(url, tmp_path / "file", DIGEST)
    assert not (tmp_path / "file").exists()
    state["cut"] = None
    assert download(url, tmp_path / "file", DIGEST).read_bytes() == CONTENT
    assert state["asked"] == [0, 100_000]
    download(url, tmp_path / "file", DIGEST)
    assert len(state["asked"]) == 2, "what is there is not fetched again"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    state, url = server
    (tmp_path / "file.part").write_bytes(b"x" * 5000)
    state["ranges"] = False
    assert download(url, tmp_path / "file", DIGEST).read_bytes() == CONTENT


def test_a_whole_part_only_needs_its_name(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(server[1], tmp_path / "file", DIGEST).exists()


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    with pytest.raises(SystemExit, match="expected SHA-256 000.*got " + DIGEST):
        download(server[1], tmp_path / "file", "0" * 64)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(SystemExit, match="delete it"):
        download(server[1], tmp_path / "file", DIGEST)


def test_offline_and_server_errors_name_the_remedy(server, tmp_path):
    with pytest.raises(SystemExit, match="Offline.*--archive FILE"):
        download("http://127.0.0.1:9/file", tmp_path / "file", DIGEST, timeout=2)
    server[0]["status"] = 503
    with pytest.raises(SystemExit, match="503.*--archive FILE"):
        download(server[1], tmp_path / "file", DIGEST)


def tar(tmp_path, *entries):
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content, kind in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(content)
            entry.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside", tarfile.REGTYPE),
        ("a/../../outside", tarfile.REGTYPE),
        ("/etc/outside", tarfile.REGTYPE),
        ("C:\\outside", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("pipe", tarfile.FIFOTYPE),
        ("device", tarfile.CHRTYPE),
    ],
)
def test_hostile_members_are_refused(tmp_path, name, kind):
    path = tar(tmp_path, ("good", b"fine", tarfile.REGTYPE), (name, b"", kind))
    with pytest.raises(SystemExit, match="refused member"):
        list(members(path))
    assert [p.name for p in tmp_path.iterdir()] == ["archive.tar.gz"], "nothing is unpacked"


def test_damaged_archives_are_told(tmp_path):
    path = tar(tmp_path, ("good", CONTENT, tarfile.REGTYPE))
    assert list(members(path)) == [("good", CONTENT)]
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(SystemExit, match="download it again"):
        list(members(path))
    path.write_bytes(b"not an archive")
    with pytest.raises(SystemExit, match="download it again"):
        list(members(path))


class Hostile:
    def __reduce__(self):
        return print, ("run by a pickle",)


def test_pickles_may_hold_arrays_only(capsys):
    record = {"data": np.arange(6).reshape(2, 3), "labels": [1, 2], "scalar": np.float64(0.5)}
    for protocol in (3, 4):
        back = load_arrays(pickle.dumps(record, protocol=protocol))
        assert np.array_equal(back["data"], record["data"]) and back["labels"] == [1, 2] and back["scalar"] == 0.5
    with pytest.raises(pickle.UnpicklingError, match="refused to load builtins.print"):
        load_arrays(pickle.dumps(Hostile()))
    assert "run by" not in capsys.readouterr().out


def test_a_pickle_of_python_2_is_read():
    """Written by hand as Python 2 wrote CIFAR: {"data": a (2, 3) uint8 array, "labels": [7]}, bytes as strings."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06\x00\x01\x02\xfd\xfe\xfftb"
    )
    record = load_arrays(b"\x80\x02}(U\x04data" + array + b"U\x06labels]K\x07au.", "latin1")
    assert record["data"].tolist() == [[0, 1, 2], [253, 254, 255]] and record["labels"] == [7]


@pytest.fixture
def any_content(monkeypatch):
    """torchvision's readers without their MD5 sums: the archives here are made up."""
    for reader in (script.datasets.CIFAR10, script.datasets.CIFAR100, script.datasets.STL10):
        for files in ("train_list", "test_list"):
            monkeypatch.setattr(reader, files, [[name, None] for name, _ in getattr(reader, files)])
        if hasattr(reader, "meta"):
            monkeypatch.setattr(reader, "meta", reader.meta | {"md5": None})


def cifar_archive(tmp_path, name="cifar10"):
    """As published: pickled batches, and a table of class names."""
    generator = np.random.default_rng(1)
    reader = {"cifar10": script.datasets.CIFAR10, "cifar100": script.datasets.CIFAR100}[name]
    classes, key = len(CLASSES[name]), {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    batches = {
        file: {
            "data": generator.integers(0, 256, (20, 3072), dtype=np.uint8),
            key: [(start + i) % classes for i in range(20)],
        }
        for start, (file, _) in enumerate(reader.train_list + reader.test_list)
    }
    stored = batches | {reader.meta["filename"]: {reader.meta["key"]: CLASSES[name]}}
    entries = [
        (f"{reader.base_folder}/{file}", pickle.dumps(value, protocol=4), tarfile.REGTYPE)
        for file, value in reversed(stored.items())
    ]
    return batches, tar(tmp_path, *entries, (f"{reader.base_folder}/readme.html", b"hello", tarfile.REGTYPE))


def run_script(monkeypatch, name, archive):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(script.SOURCES, name, script.Source("http://127.0.0.1:9/none", digest))
    monkeypatch.setattr("sys.argv", ["download.py", name, "--archive", str(archive)])
    return script.main()


def test_addresses_are_torchvisions():
    for name, reader in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("stl10", "STL10")):
        theirs = getattr(script.datasets, reader)
        assert script.SOURCES[name].url.partition("://")[2] == theirs.url.partition("://")[2]
        assert script.SOURCES[name].url.endswith(theirs.filename)
    assert script.SOURCES["imagenette"].url == script.datasets.Imagenette._ARCHIVES["160px"][0]


def test_cifar_from_archive_to_imageset(tmp_path, monkeypatch, any_content):
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "store"))
    with pytest.raises(FileNotFoundError, match="download.py cifar10"):
        load("cifar10")
    batches, archive = cifar_archive(tmp_path)
    assert run_script(monkeypatch, "cifar10", archive) == 0
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["cifar10"], "what was unpacked is gone"
    both, train, val, test = (load("cifar10", split) for split in ("train+val", "train", "val", "test"))
    assert (len(both), len(train), len(val), len(test)) == (100, 90, 10, 20)
    first = batches["data_batch_1"]
    assert np.array_equal(both.images[0].numpy(), first["data"][0].reshape(3, 32, 32))
    assert both.labels[:20].tolist() == first["labels"] and val.labels[0] == both.labels[9]
    assert np.array_equal(test.images[3].numpy(), batches["test_batch"]["data"][3].reshape(3, 32, 32))
    with pytest.raises(ValueError, match="test, train, train"):
        load("cifar10", "unlabeled")
    whole = array_file("cifar10", "test").read_bytes()
    for damaged in (whole[:-2000], whole[:5000] + b"?" + whole[5001:]):
        array_file("cifar10", "test").write_bytes(damaged)
        with pytest.raises(DataFileError, match="download.py cifar10"):
            load("cifar10", "test")
    monkeypatch.setitem(script.SOURCES, "cifar10", script.Source("http://127.0.0.1:9/none", "0" * 64))
    with pytest.raises(SystemExit, match="expected SHA-256"):
        script.main()


def test_cifar100_has_fine_labels(tmp_path, monkeypatch, any_content):
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "store"))
    batches, archive = cifar_archive(tmp_path, "cifar100")
    assert run_script(monkeypatch, "cifar100", archive) == 0
    assert load("cifar100", "test").labels.tolist() == batches["test"]["fine_labels"]


def test_a_batch_with_other_content_is_not_unpickled(tmp_path, monkeypatch):
    """Its MD5 is compared first; nothing is left behind."""
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "store"))
    entries = [("cifar-10-batches-py/data_batch_1", pickle.dumps(Hostile()), tarfile.REGTYPE)]
    with pytest.raises(SystemExit, match="not the files torchvision expects"):
        run_script(monkeypatch, "cifar10", tar(tmp_path, *entries))
    assert not list((tmp_path / "store").iterdir())


def test_stl10_layout(tmp_path, monkeypatch, any_content):
    """STL-10 stores columns first and counts labels from 1."""
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "store"))
    picture = np.zeros((10, 3, 96, 96), np.uint8)
    picture[0, 1, 5, 70], picture[1, 2, 90, 3] = 200, 100
    stored, labels = picture.swapaxes(2, 3).tobytes(), bytes([1, 10] * 5)
    entries = [(f"stl10_binary/{split}_X.bin", stored, tarfile.REGTYPE) for split in ("train", "test", "unlabeled")]
    entries += [(f"stl10_binary/{split}_y.bin", labels, tarfile.REGTYPE) for split in ("train", "test")]
    archive = tar(tmp_path, *entries, ("stl10_binary/class_names.txt", b"airplane", tarfile.REGTYPE))
    assert run_script(monkeypatch, "stl10", archive) == 0
    for split in ("train+val", "test", "unlabeled"):
        assert np.array_equal(load("stl10", split).images.numpy(), picture)
    assert load("stl10", "test").labels.tolist() == [0, 9] * 5 and load("stl10", "unlabeled").labels is None


def test_imagenette_layout(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "store"))

    def jpeg(width, height, grey):
        file = io.BytesIO()
        Image.new("RGB", (width, height), (grey, grey, grey)).save(file, "JPEG")
        return file.getvalue()

    entries = [("imagenette2-160/noisy_imagenette.csv", b"path", tarfile.REGTYPE)]
    for number, folder in enumerate(IMAGENETTE_FOLDERS):
        entries += [
            (f"imagenette2-160/train/{folder}/a.JPEG", jpeg(200, 160, 10 + number), tarfile.REGTYPE),
            (f"imagenette2-160/val/{folder}/b.JPEG", jpeg(160, 300, 240 - number), tarfile.REGTYPE),
        ]
    assert run_script(monkeypatch, "imagenette", tar(tmp_path, *entries)) == 0
    train, test = load("imagenette", "train+val"), load("imagenette", "test")
    assert train.images.shape == test.images.shape == (10, 3, 128, 128)
    assert train.labels.tolist() == test.labels.tolist() == list(range(10))
    for number in (0, 9):
        assert abs(test.images[number].float().mean() - (240 - number)) < 0.6
    with pytest.raises(SystemExit, match="expected the folders"):
        run_script(monkeypatch, "imagenette", tar(tmp_path, *entries[:3]))


def test_every_set_has_as_many_classes_as_published():
    assert {name: len(classes) for name, classes in CLASSES.items()} == {
        "cifar10": 10,
        "stl10": 10,
        "imagenette": 10,
        "cifar100": 100,
    }
    assert all(len(set(classes)) == len(classes) for classes in CLASSES.values())
    assert CLASSES["cifar100"] == sorted(CLASSES["cifar100"])


def test_full_fashion_mnist_names_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="build_fashion_mnist.py --full"):
        load("fashion_mnist_full")
    from sslcore.data.storage import npz_bytes, write_aside

    values = {f"{s}_images": np.zeros((4, 28, 28), np.uint8) for s in ("train", "val", "test")}
    values |= {f"{s}_labels": np.arange(4, dtype=np.uint8) for s in ("train", "val", "test")}
    write_aside(tmp_path / "fashion_mnist_full.npz", npz_bytes(values))
    assert torch.equal(load("fashion_mnist_full", "val").labels, torch.arange(4))
