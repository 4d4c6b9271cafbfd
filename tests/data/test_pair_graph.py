"""Pair graphs: the closure against a breadth-first search, its limits, purity, cluster links and the batches."""

from __future__ import annotations

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.data.pair_graph import PairBatches, close_pairs, cluster_links, pair_purity, tidy_pairs


def as_set(pairs: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(pair) for pair in pairs.tolist()}


def search(links: list, tracks: list) -> set[tuple[int, int]]:
    """Walks of the pattern track? link track?, and single tracks, step by step over labelled edges."""
    edges = {"track": networkx.Graph(tracks), "link": networkx.Graph(links)}
    found = {tuple(sorted(edge)) for edge in tracks}
    nodes = {node for graph in edges.values() for node in graph}
    for start in nodes:
        for pattern in (["link"], ["track", "link"], ["link", "track"], ["track", "link", "track"]):
            reached = {start}
            for kind in pattern:
                reached = {other for node in reached if node in edges[kind] for other in edges[kind][node]}
            found |= {tuple(sorted((start, end))) for end in reached if end != start}
    return found


@given(seed=st.integers(0, 200), count=st.integers(0, 12), tracked=st.integers(0, 5))
def test_closure_equals_a_search(seed, count, tracked):
    generator = torch.Generator().manual_seed(seed)
    links = torch.randint(0, 10, (count, 2), generator=generator)
    tracks = torch.randperm(10, generator=generator)[: 2 * tracked].view(-1, 2)
    kinds = close_pairs(links, tracks)
    plain = [tuple(pair) for pair in links.tolist() if pair[0] != pair[1]]
    assert as_set(kinds.all()) == search(plain, [tuple(pair) for pair in tracks.tolist()])
    for pairs in [*kinds, kinds.all()]:
        assert (pairs[:, 0] < pairs[:, 1]).all() and len(as_set(pairs)) == len(pairs)


def test_a_link_between_two_tracks_gives_six_pairs():
    kinds = close_pairs(torch.tensor([[0, 1]]), torch.tensor([[0, 10], [11, 1]]))
    assert [as_set(kind) for kind in kinds] == [{(0, 10), (1, 11)}, {(0, 1)}, {(0, 11), (1, 10)}, {(10, 11)}]
    assert len(kinds.all()) == 6


def test_one_kind_of_edge_alone_stays_as_it_is():
    edges, none = torch.tensor([[3, 1], [0, 2]]), torch.zeros(0, 2, dtype=torch.long)
    assert as_set(close_pairs(none, edges).all()) == {(1, 3), (0, 2)}
    assert as_set(close_pairs(edges, none).all()) == {(1, 3), (0, 2)}
    assert len(close_pairs(none, none).all()) == 0


def test_two_links_are_not_chained():
    kinds = close_pairs(torch.tensor([[0, 1], [1, 2]]), torch.zeros(0, 2, dtype=torch.long))
    assert (0, 2) not in as_set(kinds.all())


def test_purity_of_transitive_pairs_is_the_product():
    """Links right with probability p, tracks with probability t: about p * t * t, when wrong ends rarely agree."""
    generator = torch.Generator().manual_seed(0)
    num, p, t = 4000, 0.7, 0.9
    label = torch.arange(num) % 50
    links = torch.stack([torch.arange(num), (torch.arange(num) + 50) % num], 1)
    wrong = torch.rand(num, generator=generator) > p
    links[wrong, 1] = torch.randint(0, num, (int(wrong.sum()),), generator=generator)
    drift = torch.rand(num, generator=generator) > t
    later = torch.where(drift, torch.randint(0, 50, (num,), generator=generator), label)
    tracks = torch.stack([torch.arange(num), torch.arange(num) + num], 1)
    kinds, labels = close_pairs(links, tracks), torch.cat([label, later])
    assert pair_purity(kinds.intra, labels) == pytest.approx(t, abs=0.03)
    assert pair_purity(kinds.transitive, labels) == pytest.approx(p * t * t, abs=0.04)


@given(seed=st.integers(0, 50), per_node=st.integers(1, 4))
def test_cluster_links_stay_inside_their_cluster(seed, per_node):
    generator = torch.Generator().manual_seed(seed)
    clusters = torch.randint(-1, 5, (40,), generator=generator)
    links = cluster_links(clusters, per_node, generator)
    assert pair_purity(links, clusters) == 1 and (clusters[links] >= 0).all()
    for cluster in range(5):
        members = set((clusters == cluster).nonzero()[:, 0].tolist())
        reached = {node for pair in links.tolist() for node in pair if node in members}
        assert reached == (members if len(members) > 1 else set())


def test_links_without_any_cluster_are_none():
    assert cluster_links(torch.full((5,), -1), 2).shape == (0, 2)


def test_batches_draw_kinds_evenly_and_repeat_with_the_seed():
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 1, 2, 2)
    few, many = torch.tensor([[0, 1]]), torch.stack([torch.arange(2, 11), torch.arange(3, 12)], 1)
    labels = torch.arange(12) * 10
    batches = PairBatches(images, [few, many], labels)
    one, two = (batches(0, 400, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    ends = torch.stack([one["images"][:, 0, 0, 0], one["positives"][:, 0, 0, 0]], 1).long()
    assert as_set(tidy_pairs(ends)) <= as_set(torch.cat([few, many]))
    share = (ends.max(1).values == 1).float().mean()
    assert 0.4 < share < 0.6 and 0.4 < (ends[:, 0] < ends[:, 1]).float().mean() < 0.6
    assert torch.equal(one["pair_labels"], ends[:, 0] * 10)
    assert torch.equal(PairBatches(images, [few])(0, 4, torch.Generator())["pair_labels"], torch.arange(4))


def test_bad_input_is_refused():
    none = torch.zeros(0, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="two columns"):
        tidy_pairs(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="at most one track"):
        close_pairs(none, torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="negative"):
        close_pairs(torch.tensor([[-1, 2]]), none)
    with pytest.raises(ValueError, match="expected at least one, got none"):
        pair_purity(none, torch.zeros(3))
    with pytest.raises(ValueError, match="per_node"):
        cluster_links(torch.zeros(3), 0)
    with pytest.raises(ValueError, match="pairs in every kind"):
        PairBatches(torch.zeros(3, 1, 2, 2), [none])
