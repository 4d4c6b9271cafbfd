"""python -m sslcore.experiment bench | report, at a tiny size, twice, and with wrong arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslcore.bench import command
from sslcore.probes.network_report import SIZES
from tests.bench.small_boards import SMALL, tiny_checkpoints


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def test_the_board_from_a_shell_reads_each_network_once(tmp_path, capsys, small):
    folder = tiny_checkpoints(tmp_path / "checkpoints", tuple(f"net{number}" for number in range(4)))
    common = ["bench", "--checkpoints", "all", "--folder", str(folder), "--sizes", "tiny"]
    common += ["--cache", str(tmp_path / "cache")]
    assert command.main([*common, "--out", str(tmp_path / "board.json")]) == 0
    first = capsys.readouterr().out
    assert "4 networks, 0 readings from the cache" in first and "binding and knn_photos: rho" in first
    assert "reading" in first and "probing" in first and "CKA" in first
    assert command.main([*common, "--by", "rankme", "--out", str(tmp_path / "board.csv")]) == 0
    second = capsys.readouterr().out
    assert "4 networks, 5 readings from the cache" in second  # the untrained control too
    assert len((tmp_path / "board.csv").read_text().splitlines()) == 1 + 4 + 1 + 1
    rows = json.loads((tmp_path / "board.json").read_text())["rows"]
    assert list(rows) == ["net0", "net1", "net2", "net3", "untrained", "pixels"]


def test_the_card_from_a_shell(tmp_path, capsys, monkeypatch, small):
    monkeypatch.setenv("SSLCORE_CHAPTERS", str(tmp_path))
    tiny_checkpoints(tmp_path / "checkpoints")
    out, figure = tmp_path / "card.json", tmp_path / "card.png"
    assert command.main(["report", "first_vit", "--sizes", "tiny", "--out", str(out), "--figure", str(figure)]) == 0
    assert "first_vit" in capsys.readouterr().out and figure.stat().st_size > 1000
    assert json.loads(out.read_text())["scores"]["knn_photos"] >= 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bench", "--checkpoints", "nobody"], "unknown checkpoint"),
        (["bench", "--timm", "no_such_net", "--random-timm", "--cache", "none"], "none could be read"),
        (["bench", "--out", "board.xlsx"], ".csv"),
        (["report", "nobody"], "unknown checkpoint"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, message, capsys):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_cache_folder_can_be_chosen(monkeypatch):
    monkeypatch.setenv("SSLCORE_CACHE", "somewhere")
    assert command.default_cache() == Path("somewhere")
    monkeypatch.delenv("SSLCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert command.default_cache() == Path("caches") / "sslcore" / "readings"


def test_the_module_is_a_command(tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    line = [sys.executable, "-m", "sslcore.experiment", "bench", "--checkpoints", "nobody", "--folder", str(tmp_path)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "unknown checkpoint" in done.stderr
