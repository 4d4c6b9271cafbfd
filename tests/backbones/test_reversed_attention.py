"""Reversed attention: against three loops, and the laws it must keep.

1. Whatever a token sends is received by somebody: for each sender the received shares add up to its message.
2. One head, full messages: the output is the transposed attention applied to the values.
3. Everybody sends to one token: it gets the sum, the others nothing.  4. Everybody keeps its own: no mixing.
5. The order of the tokens does not matter.  6. reverse=False is ordinary attention.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.backbones.attention import Attention, Block, attention_weights
from sslcore.backbones.reversed_attention import HeadSelector, MessageController, ReversedAttention, reversed_weights


def _random(batch=2, heads=3, length=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(batch, heads, length, length, generator=generator).mul(2).softmax(-1)
    selector = torch.randn(batch, length, heads, generator=generator).mul(3).softmax(-1)
    return attention, selector, torch.rand(batch, length, generator=generator) * 0.9 + 0.1


def _module(dim=12, heads=3, seed=0, **settings):
    torch.manual_seed(seed)
    module = ReversedAttention(dim, heads, **settings)
    with torch.no_grad():  # away from the start, where all gates and heads are alike
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return module


def test_weights_against_three_loops():
    attention, selector, message = _random()
    got = reversed_weights(attention, selector, message)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                for j in range(5):
                    expected = float(attention[b, h, i, j]) * float(selector[b, i, h]) * float(message[b, i])
                    assert float(got[b, h, j, i]) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(0, 10**6))
def test_every_message_arrives(batch, heads, length, seed):
    attention, selector, message = (part.double() for part in _random(batch, heads, length, seed))
    attention, selector = attention / attention.sum(-1, keepdim=True), selector / selector.sum(-1, keepdim=True)
    sent = reversed_weights(attention, selector, message)
    torch.testing.assert_close(sent.sum(dim=(1, 2)), message, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sent.sum(dim=(1, 2, 3)), message.sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"selector": False}, {"controller": False}, {"reverse": False}])
def test_the_module_loses_nothing_either(options):
    module, x = _module(**options), torch.randn(2, 7, 12)
    before = torch.rand(2, 7)
    sent = module.send(x, before)
    torch.testing.assert_close(sent.dependency.sum(dim=1), sent.message)
    torch.testing.assert_close(sent.attention.sum(dim=-1), torch.ones(2, 3, 7))
    assert bool((sent.message <= before).all()) and bool((sent.message > 0).all())
    closes = options.get("reverse", True) and options.get("controller", True)
    assert torch.equal(sent.message, before) is not closes


def test_the_module_against_loops():
    module, x, before = _module(), torch.randn(2, 4, 12), torch.rand(2, 4)
    got = module.send(x, before)
    q, k, v = (part.view(2, 4, 3, 4) for part in module.qkv(x).chunk(3, -1))
    joined = torch.zeros(2, 4, 3, 4)
    for b in range(2):
        for i in range(4):  # the sender
            gate = torch.sigmoid(module.controller.mlp(x[b, i]))[0] * before[b, i]
            heads = (module.selector.score.weight @ x[b, i] / 0.1).exp()
            for h in range(3):
                scores = torch.stack([(q[b, i, h] * k[b, j, h]).sum() / 2 for j in range(4)]).exp()
                for j in range(4):
                    joined[b, j, h] += scores[j] / scores.sum() * heads[h] / heads.sum() * gate * v[b, i, h]
    torch.testing.assert_close(got.out, module.proj(joined.flatten(2)), rtol=1e-4, atol=1e-5)


def test_one_head_and_full_messages_transpose_attention():
    module, x = _module(heads=1, controller=False), torch.randn(2, 5, 12)
    q, k, v = module.qkv(x).chunk(3, -1)
    weights = attention_weights(q[:, None], k[:, None])[:, 0]
    torch.testing.assert_close(module.send(x).out, module.proj(weights.transpose(1, 2) @ v))


def test_one_receiver_gets_the_sum():
    attention = torch.zeros(1, 1, 6, 6)
    attention[..., 2] = 1
    weights = reversed_weights(attention, torch.ones(1, 6, 1), torch.ones(1, 6))
    value = torch.randn(1, 1, 6, 4)
    out = weights @ value
    torch.testing.assert_close(out[0, 0, 2], value.sum(2)[0, 0])
    assert not out[0, 0, [0, 1, 3, 4, 5]].any()


def test_who_keeps_its_message_mixes_nothing():
    selector = torch.eye(3)[torch.tensor([0, 2, 1, 2])][None]
    weights = reversed_weights(torch.eye(4).expand(1, 3, 4, 4), selector, torch.ones(1, 4))
    value = torch.randn(1, 3, 4, 2)
    torch.testing.assert_close(weights @ value, value * selector.transpose(1, 2)[..., None])


def test_order_of_tokens_does_not_matter():
    module, x, order = _module(), torch.randn(2, 6, 12), torch.randperm(6)
    torch.testing.assert_close(module.send(x[:, order]).out, module.send(x).out[:, order], rtol=1e-4, atol=1e-5)


def test_without_reversal_it_is_attention():
    module, plain = _module(reverse=False), Attention(12, 3)
    plain.load_state_dict(module.state_dict())  # the same parameters, nothing more
    x, mask = torch.randn(2, 6, 12), torch.rand(6, 6) > 0.4
    mask |= torch.eye(6, dtype=torch.bool)
    for attn_mask in (None, "causal", mask):
        got, shown = module(x, None, attn_mask, True)
        expected, weights = plain(x, None, attn_mask, True)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(shown, weights)
    torch.testing.assert_close(module.send(x).dependency, plain(x, None, None, True)[1].mean(1).transpose(1, 2))


def test_drops_into_any_block():
    block = Block(12, 3)
    block.attn = _module()
    out, weights = block(torch.randn(2, 5, 12), return_attention=True)
    assert out.shape == (2, 5, 12) and weights.shape == (2, 3, 5, 5)


def test_a_message_ends_with_its_sender():
    """Token 0 sends all it has to token 1; then a change of token 0 moves no other token."""
    module = _module(heads=1, controller=False)
    x = torch.randn(1, 4, 12)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[0] = torch.tensor([False, True, False, False])
    changed = x.clone()
    changed[:, 0] += 1
    mask[1:, 0] = False  # nobody sends to token 0, so that its own key is not read
    moved = (module.send(changed, None, None, mask).out - module.send(x, None, None, mask).out).abs().amax(-1)[0]
    assert moved[1] > 1e-3 and bool((moved[[0, 2, 3]] < 1e-6).all())


def test_a_cold_selector_is_nearly_one_hot():
    x = torch.randn(2, 50, 12)
    torch.manual_seed(0)
    cold, warm = HeadSelector(12, 4, 0.02), HeadSelector(12, 4, temperature=10.0)
    warm.load_state_dict(cold.state_dict())
    assert float(cold(x).amax(-1).mean()) > 0.9 and float(warm(x).amax(-1).mean()) < 0.3
    torch.testing.assert_close(cold(x).sum(-1), torch.ones(2, 50))


def test_the_gate_starts_open():
    gate = MessageController(12)(torch.randn(2, 9, 12))
    assert float(gate.min()) > 0.9 and float(MessageController(12, 0.0)(torch.randn(2, 9, 12)).mean()) < 0.6


def test_messages_stay_in_float32_under_autocast():
    module, x = _module(), torch.randn(2, 6, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sent = module.send(x)
    assert sent.dependency.dtype == sent.message.dtype == torch.float32
    torch.testing.assert_close(sent.dependency.sum(1), sent.message, rtol=1e-5, atol=1e-6)


def test_bad_input():
    attention, selector, message = _random()
    with pytest.raises(ValueError, match="L x L"):
        reversed_weights(attention[..., :4], selector, message)
    with pytest.raises(ValueError, match="selector"):
        reversed_weights(attention, selector.transpose(1, 2), message)
    with pytest.raises(ValueError, match="message"):
        reversed_weights(attention, selector, message[:, :4])
    with pytest.raises(ValueError, match="4 dimensions"):
        reversed_weights(attention[0], selector, message)
    with pytest.raises(ValueError, match="temperature"):
        HeadSelector(12, 3, temperature=0.0)
