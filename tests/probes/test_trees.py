"""Trees: the arborescence against every tree there is, and the laws of trees induced from masks."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.probes import induce_trees, maximum_arborescence, subtrees, tree_depths


def _all_trees(length, root):
    """Every assignment of parents in which each node reaches the root."""
    others = [node for node in range(length) if node != root]
    for choice in itertools.product(range(length), repeat=length - 1):
        parents = dict(zip(others, choice, strict=True))
        good = True
        for node in others:
            steps = 0
            while node != root and steps < length:
                node, steps = parents[node], steps + 1
            good &= node == root
        if good:
            yield parents


def _worth(scores, parents):
    return sum(float(scores[parent, child]) for child, parent in enumerate(parents.tolist()) if parent >= 0)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["normal", "whole numbers", "mutual pairs"])
def test_against_every_tree(length, kind):
    generator = torch.Generator().manual_seed(length)
    count = 0
    for _ in range(12):
        scores = torch.randn(length, length, generator=generator).double()
        if kind == "whole numbers":  # many ties
            scores = scores.mul(1.5).round()
        if kind == "mutual pairs":  # neighbours want each other: cycles inside cycles
            scores = scores * 0.3 - 2 * (torch.arange(length)[:, None] - torch.arange(length)).abs()
        root = int(torch.randint(length, (1,), generator=generator))
        best = max(sum(float(scores[p, c]) for c, p in tree.items()) for tree in _all_trees(length, root))
        parents = maximum_arborescence(scores, root)
        assert parents[root] == -1 and (parents == -1).sum() == 1
        tree_depths(parents[None])  # raises on a cycle
        assert _worth(scores, parents) == pytest.approx(best, abs=1e-9)
        count += 1
    assert count == 12


def test_the_number_of_trees_is_cayley_s():
    assert [sum(1 for _ in _all_trees(n, 0)) for n in (1, 2, 3, 4, 5)] == [1, 1, 3, 16, 125]


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 40), st.integers(0, 10**6))
def test_large_trees_are_trees_and_no_swap_helps(length, seed):
    scores = torch.randn(length, length, generator=torch.Generator().manual_seed(seed)).double()
    parents = maximum_arborescence(scores, seed % length)
    depths = tree_depths(parents[None])[0]
    assert depths[seed % length] == 0 and (depths == 0).sum() == 1
    worth = _worth(scores, parents)
    for child in range(0, length, 3):  # moving one subtree to another parent never gains
        for parent in range(0, length, 3):
            above, node = set(), parent
            while node >= 0:
                above.add(node)
                node = int(parents[node])
            if parents[child] < 0 or child in above:
                continue
            moved = parents.clone()
            moved[child] = parent
            assert _worth(scores, moved) <= worth + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_a_constant_for_each_child_changes_nothing(length, seed):
    generator = torch.Generator().manual_seed(seed)
    scores, extra = torch.randn(length, length, generator=generator), torch.randn(length, generator=generator)
    assert torch.equal(maximum_arborescence(scores, 0), maximum_arborescence(scores + extra, 0))


def test_renumbering_the_nodes_renumbers_the_tree():
    scores, order = torch.randn(9, 9), torch.randperm(9)
    straight = maximum_arborescence(scores, int(order[0]))
    turned = maximum_arborescence(scores[order][:, order], 0)
    back = torch.where(turned >= 0, order[turned.clamp_min(0)], -1)
    assert torch.equal(back, straight[order])


def test_against_networkx_where_it_is_installed():
    networkx = pytest.importorskip("networkx")
    for seed in range(3):
        table = np.random.default_rng(seed).normal(size=(12, 12)) + 5
        graph = networkx.DiGraph()
        graph.add_weighted_edges_from((j, i, table[j, i]) for j in range(12) for i in range(1, 12) if i != j)
        best = networkx.maximum_spanning_arborescence(graph, preserve_attrs=True)
        expected = sum(table[j, i] for j, i in best.edges)
        assert _worth(table, maximum_arborescence(torch.from_numpy(table), 0)) == pytest.approx(expected)


def test_a_planted_tree_comes_back():
    planted = torch.tensor([[-1, 0, 0, 1, 1, 2], [3, 3, 3, -1, 0, 0]])
    dependency = torch.full((2, 6, 6), 0.02)
    for b in range(2):
        for child, parent in enumerate(planted[b].tolist()):
            dependency[b, parent if parent >= 0 else child, child] = 0.9
    roots = torch.tensor([0, 3])
    assert torch.equal(induce_trees(dependency, roots), planted)
    assert torch.equal(induce_trees(dependency * torch.rand(2, 1, 6), roots), planted)  # however loud each sender is


def test_the_root_receives_most_from_others():
    dependency = torch.rand(3, 5, 5)
    dependency[:, 1, 1] = 100  # what a token keeps does not make it a root
    dependency[:, 4] += 1
    assert ((induce_trees(dependency) == -1).nonzero()[:, 1] == 4).all()


def test_depths_and_subtrees():
    parents = torch.tensor([[-1, 0, 0, 1, 3, 2]])
    assert tree_depths(parents).tolist() == [[0, 1, 1, 2, 3, 2]]
    assert subtrees(parents, 0).tolist() == [[0] * 6]
    assert subtrees(parents).tolist() == [[0, 1, 2, 1, 1, 2]]
    assert subtrees(parents, 2).tolist() == [[0, 1, 2, 3, 3, 5]]
    assert subtrees(parents, 9).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_bad_input():
    good = torch.rand(4, 4)
    for scores, root, message in (
        (good[:3], 0, "N x N"), (good, 4, "root"), (good, -1, "root"), (good * torch.nan, 0, "finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            maximum_arborescence(scores, root)
    with pytest.raises(TypeError, match="floating"):
        maximum_arborescence(good.long(), 0)
    with pytest.raises(ValueError, match="negative"):
        induce_trees(-good[None])
    with pytest.raises(ValueError, match="roots"):
        induce_trees(good[None], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="3 dimensions"):
        induce_trees(good)
    with pytest.raises(ValueError, match="cycle"):
        tree_depths(torch.tensor([[-1, 2, 1]]))
    with pytest.raises(ValueError, match="one root"):
        tree_depths(torch.tensor([[-1, -1, 0]]))
    with pytest.raises(ValueError, match="depth"):
        subtrees(torch.tensor([[-1, 0]]), -1)
    with pytest.raises(ValueError, match="B >= 1"):
        induce_trees(torch.ones(0, 3, 3))
