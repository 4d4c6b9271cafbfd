"""Array files: the same bytes each time, never pickle, and a clear word on every kind of damage."""

import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslcore.data.storage import DataFileError, data_folder, npz_bytes, read_npz, write_aside
from sslcore.files import sha256

ARRAYS = {"b": np.arange(300, dtype=np.uint8).reshape(30, 10), "a": np.arange(7)}


def test_bytes_do_not_depend_on_order_or_clock(tmp_path, monkeypatch):
    first = npz_bytes(ARRAYS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert npz_bytes(dict(reversed(ARRAYS.items()))) == first
    write_aside(tmp_path / "folder/x.npz", first)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["x.npz"]
    back = read_npz(tmp_path / "folder/x.npz", sha256(tmp_path / "folder/x.npz"))
    assert all(np.array_equal(back[name], value) for name, value in ARRAYS.items())


def test_missing_file_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="python make_it.py"):
        read_npz(tmp_path / "none.npz", made_by="python make_it.py")


def test_wrong_checksum_is_told(tmp_path):
    write_aside(tmp_path / "x.npz", npz_bytes(ARRAYS))
    with pytest.raises(DataFileError, match="expected SHA-256 0000.*got [0-9a-f]{64}"):
        read_npz(tmp_path / "x.npz", "0" * 64)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_a_truncated_file_is_an_error_of_ours(tmp_path, cut):
    whole = npz_bytes(ARRAYS)
    write_aside(tmp_path / "x.npz", whole[: cut % len(whole)])
    with pytest.raises(DataFileError, match="x.npz"):
        read_npz(tmp_path / "x.npz")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_an_error_of_ours(tmp_path, content):
    write_aside(tmp_path / "x.npz", content)
    with pytest.raises(DataFileError):
        read_npz(tmp_path / "x.npz")


def test_flipped_bits_never_pass_the_checksum(tmp_path):
    good = npz_bytes(ARRAYS)
    write_aside(tmp_path / "x.npz", good)
    digest = sha256(tmp_path / "x.npz")
    write_aside(tmp_path / "x.npz", good[:50] + bytes([good[50] ^ 1]) + good[51:])
    with pytest.raises(DataFileError):
        read_npz(tmp_path / "x.npz", digest)


def test_pickled_objects_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataFileError, match="x.npz"):
        read_npz(tmp_path / "x.npz")


def test_missing_array_is_told(tmp_path):
    write_aside(tmp_path / "x.npz", npz_bytes(ARRAYS))
    with pytest.raises(DataFileError, match="labels"):
        read_npz(tmp_path / "x.npz", names=["labels"])


def test_data_folder_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSLCORE_DATA", raising=False)
    assert data_folder().parts[-2:] == (".cache", "sslcore")
    (tmp_path / "data").mkdir()
    assert data_folder().resolve() == (tmp_path / "data").resolve()
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path / "chosen"))
    assert data_folder() == tmp_path / "chosen"
