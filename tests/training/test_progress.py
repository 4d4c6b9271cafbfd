"""The bar shows where someone looks, and is silent under CI."""

from __future__ import annotations

import sys

import pytest

from sslcore.training.progress import progress_bar, wants_bar


@pytest.mark.parametrize("terminal, ci, wanted", [(True, "", True), (True, "true", False), (False, "", False)])
def test_bar_follows_the_surroundings(monkeypatch: pytest.MonkeyPatch, terminal: bool, ci: str, wanted: bool):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert wants_bar(None) is wanted
    assert wants_bar(True) is True and wants_bar(False) is False


@pytest.mark.parametrize("value, wanted", [("1", False), ("0", True), ("", True)])
def test_tqdm_disable_counts(monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("TQDM_DISABLE", value)
    assert wants_bar(None) is wanted


def test_silent_bar_still_counts(capsys: pytest.CaptureFixture):
    assert list(progress_bar(3, 6, "run", False)) == [3, 4, 5]
    assert capsys.readouterr() == ("", "")
    assert list(progress_bar(3, 6, "run", True)) == [3, 4, 5]
    assert "run" in capsys.readouterr().err
