"""LeJEPA as a method: directions travel with the views, and its guards can be taken away."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import small_convnet
from sslcore.methods import LeJEPA
from sslcore.objectives import lejepa
from sslcore.training import fit
from tests.methods.small_methods import small_set

BATCH = {"images": torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)}


def method(**settings):
    return LeJEPA(small_convnet(3, (8,)), projector_dims=(8, 4), num_slices=10, **settings)


def test_each_step_has_directions_of_its_own_unless_they_are_fixed():
    generator = torch.Generator().manual_seed(0)
    first, second = (method().views(BATCH, generator)["directions"] for _ in range(2))
    assert first.shape == (8, 2, 4) and not torch.equal(first, second)
    fixed = method(slices_seed=3)
    first, second = (fixed.views(BATCH, generator)["directions"] for _ in range(2))
    assert torch.equal(first, second)


def test_loss_is_the_objective_of_the_projected_views():
    model = method(num_views=2, local_crops=1, lambd=0.3).eval()
    views = model.views(BATCH, torch.Generator().manual_seed(0))
    z = torch.stack([model.projector(model.features(view)) for view in views["views"]])
    slices = torch.nn.functional.normalize(views["directions"].flatten(0, 1)[:10], dim=1).T
    expected = lejepa(z, 0.3, num_global=2, slices=slices)
    torch.testing.assert_close(model.loss(views).total, expected.total)


def test_without_the_guard_embeddings_shrink_and_with_it_they_do_not():
    spread = {}
    for lambd in (0.0, 0.2):
        torch.manual_seed(0)
        settings = {"projector_dims": (16, 8), "projector_norm": "layer", "num_slices": 16}
        model = LeJEPA(small_convnet(3, (8,)), lambd=lambd, **settings)
        data = small_set()
        fit(model, data, steps=60, batch_size=16, lr=1e-2, progress=False)
        view = model.eval().views({"images": data.images}, torch.Generator().manual_seed(0))["views"][0]
        spread[lambd] = float(model.projector(model.features(view)).std(0).mean())
    assert spread[0.0] < 0.1 < spread[0.2]


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="two views"):
        method(num_views=1)
