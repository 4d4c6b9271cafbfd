"""Pictures of a planted board: every network drawn once, sorted tables, wrong names refused."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from sslcore.bench import relate
from sslcore.nb.leaderboard import (
    binding_by_layer,
    board_table,
    cka_figure,
    ranks_figure,
    relations_figure,
    scatter,
    scatter_explorer,
    sortable_table,
)
from tests.bench.small_boards import planted_board


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_tables_are_sorted_and_hold_the_column_they_are_sorted_by():
    table = board_table(planted_board(), "geometry", "knn_photos")
    assert table.text.splitlines()[0].split() == ["network", "kNN", "photos", "RankMe"]
    assert table._repr_markdown_().splitlines()[2].startswith("| f |") and repr(table) == table.text
    assert "weights" in sortable_table(planted_board()).text  # no live widgets: everything, once
    with pytest.raises(ValueError, match="group"):
        board_table(planted_board(), "beauty")


def test_the_scatter_marks_every_network_and_names_the_relation():
    figure = scatter(planted_board(), "binding", "knn_photos")
    assert "rho +1.00" in figure.axes[0].get_title() and "n = 6" in figure.axes[0].get_title()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "c", "d", "e", "f", "untrained"]
    assert scatter_explorer(planted_board(3)).axes[0].get_title() == ""  # three networks have no correlation
    assert scatter(planted_board(), "knn_photos", "gflops").axes[0].get_title() == ""  # nor has a constant


def test_relations_are_drawn_with_intervals():
    relations = {"one": relate([1, 2, 3, 4], [1, 2, 3, 4]), "two": relate([1, 2, 3, 4], [4, 2, 3, 1])}
    ax = relations_figure(relations, "title").axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["two", "one"] and len(ax.texts) == 2
    with pytest.raises(ValueError, match="at least one"):
        relations_figure({}, "title")


def test_places_count_from_the_best():
    board = planted_board(4)
    ax = ranks_figure(board, ["binding", "knn_photos", "gflops"]).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["d", "c", "b", "a"]
    assert [text.get_text() for text in ax.texts[:3]] == ["1", "1", "2.5"]  # all alike: they share the mean place
    with pytest.raises(ValueError, match="every network"):
        ranks_figure(board, ["rankme"])
    with pytest.raises(ValueError, match="at least one"):
        ranks_figure(board, [])


def test_heat_maps_print_their_numbers():
    figure = binding_by_layer(planted_board(4))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["d", "c", "b", "a"]
    assert figure.axes[0].texts[2].get_text() == "0.56"
    alike = cka_figure(planted_board(4)).axes[0]
    assert sorted(text.get_text() for text in alike.get_yticklabels()) == ["a", "b", "c", "d"]
    assert sorted({text.get_text() for text in alike.texts}) == ["0.30", "1.00"]
