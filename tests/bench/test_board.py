"""The board: rows, controls, sorting, files, and networks that fail without taking the others along."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from sslcore.bench import COLUMNS, Network, find_networks, run_bench
from sslcore.bench.board import shown
from tests.bench.small_boards import SMALL, planted_board, tiny_checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def board(folder, cache):
    return run_bench(find_networks(folder=folder), SMALL, cache, say=lambda line: None)


def test_every_checkpoint_is_a_row_beside_its_controls(board):
    assert list(board.rows) == ["first_vit", "second_vit", "untrained", "pixels"]
    assert board.networks == ["first_vit", "second_vit"] and board.controls == ["untrained"]
    for name in board.networks:
        row = board.rows[name]
        assert row["knn_photos_untrained"] == board.rows["untrained"]["knn_photos"]
        assert {"linear_photos", "jaccard", "tokencut", "rankme", "ms"} <= row.keys()
    assert board.cka_names == ["first_vit", "second_vit", "untrained"]
    assert board.cka.diagonal().tolist() == pytest.approx([1, 1, 1])


def test_one_more_checkpoint_is_one_more_row_and_the_rest_comes_from_the_cache(board, folder, cache, tmp_path):
    grown = tiny_checkpoints(tmp_path, ("first_vit", "second_vit", "third_vit"))
    more = run_bench(find_networks(folder=grown), SMALL, cache, say=lambda line: None)
    assert list(more.rows) == ["first_vit", "second_vit", "third_vit", "untrained", "pixels"]
    assert more.facts["from_cache"] == 3
    for key in ("knn_photos", "linear_photos", "jaccard", "rankme", "ms"):
        assert more.rows["first_vit"][key] == board.rows["first_vit"][key], key


def test_a_network_that_fails_is_named_and_left_out(folder):
    broken = torch.nn.Linear(3, 3)

    def missing():
        raise FileNotFoundError("weights are elsewhere")

    networks = [*find_networks(["first_vit"], folder=folder), Network("odd", lambda: broken, ""),
                Network("gone", missing, "")]  # fmt: skip
    said = []
    found = run_bench(networks, SMALL, say=said.append)
    assert set(found.failed) == {"odd", "gone"} and "elsewhere" in found.failed["gone"]
    assert list(found.rows) == ["first_vit", "untrained", "pixels"]
    assert any("left out" in line for line in said)
    with pytest.raises(ValueError, match="none could be read"):
        run_bench([Network("gone", missing, "")], SMALL, say=said.append)
    with pytest.raises(ValueError, match="different names"):
        run_bench([networks[0], networks[0]], SMALL)


def test_rows_are_sorted_by_a_column():
    board = planted_board(4)
    assert board.sorted_names("binding") == ["d", "c", "b", "untrained", "a", "pixels"]
    assert board.sorted_names("knn_photos", descending=False)[:2] == ["a", "untrained"]
    assert board.sorted_names("rankme")[-3:] == ["d", "untrained", "pixels"]  # no such number: last
    lines = board.table("knn_photos").splitlines()
    assert lines[0].split()[0] == "network" and lines[1].startswith("d ") and lines[-1].startswith("a ")
    markdown = board.table("binding", columns=["binding"], style="markdown").splitlines()
    assert [markdown[0], markdown[2], markdown[-1]] == ["| network | binding |", "| d | 0.650 |", "| pixels | - |"]
    assert repr(board) == board.table()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown column"):
        planted_board().sorted_names("beauty")
    with pytest.raises(ValueError, match="unknown table style"):
        planted_board().table(style="html")
    with pytest.raises(ValueError, match=r"\.csv"):
        planted_board().save("board.txt")


def test_relations_leave_controls_and_gaps_out():
    board = planted_board(6)
    transfer, rank = board.relation("binding", "knn_photos"), board.relation("binding", "rankme")
    assert transfer.rho == pytest.approx(1) and transfer.n == 6
    assert rank.rho == pytest.approx(-1) and rank.n == 5


def test_columns_without_variation_or_networks_are_not_compared():
    board = planted_board(4)
    assert board.comparable("binding", "knn_photos") and not board.comparable("binding", "gflops")
    assert not board.comparable("binding", "rankme") and not planted_board(3).comparable("binding", "knn_photos")
    assert not board.comparable("binding", "lost")


def test_errors_come_from_intervals_and_counts():
    board = planted_board(4)
    board.facts["test_images"] = {"photos": 100}
    assert board.errors("binding", ["a", "b"]) == pytest.approx([0.04 / 3.92] * 2)
    assert board.errors("knn_photos", ["b"]) == pytest.approx([(0.1 * 0.9 / 100) ** 0.5])
    assert board.errors("rankme", ["a", "b"]) == [0.0, 0.0]


def test_files_hold_what_the_board_holds(tmp_path):
    board = planted_board(4)
    data = json.loads(board.save(tmp_path / "board.json").read_text())
    assert data["rows"]["b"]["knn_photos"] == 0.1 and data["cka"]["matrix"][0][1] == 0.3
    assert data["skipped"] == {"a": {"LOST": "no patches"}}
    assert data["binding"]["b"]["layers"]["2"]["auroc"] == pytest.approx(0.52)
    rows = list(csv.DictReader(board.save(tmp_path / "board.csv").read_text().splitlines()))
    assert [row["network"] for row in rows] == list(board.rows)
    assert float(rows[1]["binding"]) == 0.55 and float(rows[0]["cka b"]) == 0.3 and rows[-1]["cka a"] == ""


def test_cells():
    assert shown("params", 818304) == "818,304" and shown("rankme", 13.34) == "13.3"
    assert shown("pool_photos", "cls") == "cls"
    assert shown("binding", None) == shown("binding", math.nan) == "-"
    assert all(column.better in (-1, 0, 1) and column.meaning for column in COLUMNS.values())
