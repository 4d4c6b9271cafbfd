"""The fixture that runs a test once for every method and kind of network."""

from __future__ import annotations

import pytest

from sslcore.methods import Method
from tests.methods.small_methods import PAIRS, small_method


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def method(request: pytest.FixtureRequest) -> Method:
    """Every method on a vision transformer and, where it can, on a convolutional net with BatchNorm."""
    return small_method(*request.param)
