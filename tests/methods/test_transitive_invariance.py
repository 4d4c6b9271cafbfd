"""TransitiveInvariance: given pairs go in unchanged, labels shield, and without pairs it takes two views."""

from __future__ import annotations

import pytest
import torch

from sslcore.data.pair_graph import PairBatches
from sslcore.objectives import mined_triplet_loss
from sslcore.training import fit
from sslcore.views import ViewPolicy
from tests.methods.small_methods import small_batch, small_method, small_set

PLAIN = ViewPolicy(16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=0.0)


def test_loss_is_that_of_the_pairs_given():
    method = small_method("transitive_invariance", policy=PLAIN)
    data = small_set()
    batch = {"images": data.images[:8], "positives": data.images[8:16], "pair_labels": torch.arange(8) // 2}
    views = method.views(batch, torch.Generator().manual_seed(0))
    z0, z1 = (method.projector(method.features(PLAIN(part))) for part in (batch["images"], batch["positives"]))
    expected = mined_triplet_loss(z0, z1, batch["pair_labels"], views[3])
    torch.testing.assert_close(method.loss(views), expected)


def test_without_pairs_an_image_is_its_own_track():
    method = small_method("transitive_invariance")
    first, second, labels, _ = method.views(small_batch(), torch.Generator().manual_seed(0))
    assert not torch.equal(first, second) and torch.equal(labels, torch.arange(8))


def test_it_learns_the_pairs_of_a_graph():
    """Positives are fixed random partners: nothing but the pairs says who belongs together."""
    method = small_method("transitive_invariance", "convnet", policy=PLAIN)
    pairs = torch.arange(24).view(12, 2)
    batches = PairBatches(small_set().images, [pairs])
    history = fit(method, batches, steps=150, batch_size=12, lr=1e-2, device="cpu")
    assert sum(history.loss[-5:]) < 0.5 * sum(history.loss[:5])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_negatives"):
        small_method("transitive_invariance", num_negatives=0)
