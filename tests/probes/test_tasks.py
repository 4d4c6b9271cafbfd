"""What controls and baselines are given: targets, permuted and visible pairs, subspaces of equal size."""

from __future__ import annotations

import torch

from sslcore.data import load
from sslcore.probes.same_object.baselines import baselines
from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.labels import token_labels
from sslcore.probes.same_object.report import scene_pairs
from sslcore.probes.same_object.tasks import (
    blind_features,
    control_subspaces,
    permuted_pairs,
    token_targets,
    visible_pairs,
)

SCENES = [load("twins", split, num=count, seed=70 + i) for i, (split, count) in enumerate(
    (("train", 40), ("val", 20), ("test", 40)))]  # fmt: skip


def test_targets_name_the_photo_and_the_instance():
    train = SCENES[0]
    labels, purity = token_labels(train.masks, 8)
    photo, count = token_targets(train, 8, "class")
    assert count == len(train.extras["objects"].unique()) and int(photo.max()) < count
    clear = (labels > 0) & (purity >= 0.6)
    assert bool((photo[~clear] == -1).all()) and bool((photo[clear] >= 0).all())
    image, token = clear.nonzero()[5]
    own = train.extras["objects"][image, labels[image, token] - 1]
    assert int(train.extras["objects"].unique()[photo[image, token]]) == int(own)
    instance, slots = token_targets(train, 8, "identity")
    assert slots == 8 and torch.equal(instance[clear], labels[clear]) and bool((instance[purity < 0.6] == -1).all())


def test_permuted_and_visible_pairs():
    train = SCENES[0]
    dealt = permuted_pairs(train, 8, 1)
    labels, _ = token_labels(train.masks, 8)
    a, b = labels[dealt.image, dealt.first], labels[dealt.image, dealt.second]
    twin = train.extras["twin_of"][dealt.image, a - 1] == b - 1
    assert bool(((a == b) | twin).all())  # still an object, or it and its twin
    assert 0.3 < float(((a == b) == dealt.same).float().mean()) < 0.75  # the answers have nothing to do with the truth
    keep = torch.rand(40, 64, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :32]
    pairs = visible_pairs(train, 8, keep, stratum="foreground", match="none")
    shown = torch.zeros(40, 64, dtype=torch.bool).scatter(1, keep, True)
    assert bool(shown[pairs.image, pairs.first].all()) and bool(shown[pairs.image, pairs.second].all())


def test_blind_features_and_baselines():
    blind = blind_features(SCENES, 8)
    assert {name: part["test"].shape[-1] for name, part in blind.items()} == {"position": 49, "colour": 9, "pixels": 32}
    tokens = {split: part[None] for split, part in blind["colour"].items()}
    pairs = scene_pairs(SCENES[2], 8, (8, 8), 0)
    found = baselines(tokens, SCENES, {"twins": pairs}, 8)
    ladder = {f"{kind}, twins" for kind in ("additive", "diagonal", "quadratic", "lowrank", "shuffled labels")}
    assert set(found) == ladder | {"class, twins", "identity, twins", "permuted ids, fresh", "permuted ids, by heart"}
    assert all(low <= value <= high for value, (low, high) in found.values())
    assert found["permuted ids, by heart"][0] > found["permuted ids, fresh"][0]


def test_control_subspaces_have_one_size():
    tokens = blind_features(SCENES, 8)["position"]
    pairs = [scene_pairs(part, 8, (8, 8), 0) for part in SCENES[:2]]
    fitted = same_object_probe((tokens["train"][None], pairs[0]), (tokens["val"][None], pairs[1]), epochs=1)
    noisy = tokens["train"] + torch.randn(tokens["train"].shape, generator=torch.Generator().manual_seed(0))
    spaces = control_subspaces(fitted, noisy, 5, 0, 3)
    assert list(spaces) == ["probe", "pca", "place", "random0", "random1", "random2"]
    for space in spaces.values():
        torch.testing.assert_close(space.basis.T @ space.basis, torch.eye(5), atol=1e-4, rtol=0)
    assert not torch.allclose(spaces["random0"].basis, spaces["random1"].basis)
