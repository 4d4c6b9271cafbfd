"""Extraction leaves the network as it was, and batches and layers change nothing."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.frozen import extract, frozen
from tests.probes.planted import TinyTransformer

IMAGES = torch.randint(0, 256, (7, 3, 16, 24), dtype=torch.uint8)


def test_training_flags_come_back_even_after_an_error():
    net = TinyTransformer().train()
    net.drop.eval()
    with pytest.raises(RuntimeError), frozen(net):
        assert not net.training
        raise RuntimeError
    assert net.training and not net.drop.training and net.embed.training


def test_dropout_is_off_and_batches_do_not_matter():
    net = TinyTransformer().train()
    features = extract(net, IMAGES, batch_size=3)
    assert features.shape == (7, 12) and not features.requires_grad
    torch.testing.assert_close(features, extract(net, IMAGES, batch_size=100))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_pools_match_the_backbone(prefix):
    net = TinyTransformer(prefix=prefix).eval()
    tokens = net(net.preprocess(IMAGES), return_layers=True)
    torch.testing.assert_close(extract(net, IMAGES, "cls"), tokens.cls_token)
    torch.testing.assert_close(extract(net, IMAGES, "mean"), tokens.patch_tokens.mean(1))
    torch.testing.assert_close(extract(net, IMAGES, "tokens"), tokens.patch_tokens)
    layers = extract(net, IMAGES, "tokens", batch_size=2, layers="all")
    assert layers.shape == (3, 7, 6, 12)
    torch.testing.assert_close(layers[1], tokens.layers[1][:, prefix:])
    expected = tokens.layers[2][:, 0] if prefix else tokens.layers[2].mean(1)
    torch.testing.assert_close(extract(net, IMAGES, "cls", layers=[-1])[0], expected)


def test_preprocess_is_the_argument_then_the_backbones_own_and_floats_pass():
    net = TinyTransformer()
    floats = IMAGES.float() / 255
    torch.testing.assert_close(extract(net, floats), extract(net, IMAGES))
    torch.testing.assert_close(extract(net, IMAGES, preprocess=lambda x: x.float() * 0), extract(net, floats * 0))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pool": "max"}, "pool"),
        ({"layers": [3]}, "layers"),
        ({"layers": []}, "layers"),
        ({"layers": "last"}, "layers"),
        ({"batch_size": 0}, "batch_size"),
        ({"images": IMAGES[:0]}, "at least one"),
        ({"images": IMAGES[0]}, "dimensions"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        extract(TinyTransformer(), **({"images": IMAGES} | arguments))
