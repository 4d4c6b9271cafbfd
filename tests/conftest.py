"""Every test runs on one thread, from one seed, and cannot reach the network."""

from __future__ import annotations

import ipaddress
import os
import random
import socket

import matplotlib
import numpy
import pytest
import torch

try:
    import hypothesis
except ModuleNotFoundError:  # a GPU machine that runs only `pytest -m gpu` may lack it
    hypothesis = None


class NetworkBlocked(OSError):
    """A test tried to reach another machine. Tests run offline: give it local data."""


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket's path
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _block_network(patch: pytest.MonkeyPatch) -> None:
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: object) -> None:
        if not _is_local(address):
            raise NetworkBlocked(f"the test tried to reach {address}; tests must run offline")

    def guarded_connect(self, address):
        check(address)
        return connect(self, address)

    def guarded_connect_ex(self, address):
        check(address)
        return connect_ex(self, address)

    def guarded_resolve(host, *args, **kwargs):
        check((host or "", 0))
        return resolve(host, *args, **kwargs)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(scope="session", autouse=True)
def offline():
    """Connections to anything but this machine raise NetworkBlocked, in this process and for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        _block_network(patch)
        yield


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # The environment is for the processes that tests start: kernels, ranks, scripts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    matplotlib.use("Agg")  # not through MPLBACKEND: kernels that tests start would inherit it and show no pictures
    if hypothesis is not None:
        # Derandomised: the same examples in every run. No deadline: a shared core would trip it.
        hypothesis.settings.register_profile("sslcore", deadline=None, derandomize=True, database=None, max_examples=25)
        hypothesis.settings.load_profile("sslcore")


def pytest_runtest_setup(item: pytest.Item) -> None:
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = None
    if os.environ.get("TRITON_INTERPRET") == "1":
        reason = "TRITON_INTERPRET=1 replaces the device by an interpreter"
    elif not torch.cuda.is_available():
        reason = "no CUDA device"
    if reason is not None:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
