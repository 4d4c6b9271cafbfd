"""BEiT and its tokenizers: hidden pixels enter the label alone, each control takes out one thing, the dVAE learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.data.imageset import ImageSet
from sslcore.methods import DVAE, BEiT, PatchCodes
from sslcore.objectives import patchify, unpatchify
from sslcore.training import fit
from sslcore.views import ViewPolicy
from tests.methods.small_methods import small_batch, small_method


def views_of(method, seed=0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def test_hidden_pixels_reach_the_label_alone():
    method = small_method("beit")
    images, mask, draws = views_of(method)
    assert mask.dtype == torch.bool and (mask.sum(1) == 16 - int(16 * 0.6)).all()
    noise = torch.randn(8, 16, 48)
    other = unpatchify(torch.where(mask[..., None], noise, patchify(images, 4)), 4, (4, 4), 3)
    assert torch.equal(method.predict(images, mask), method.predict(other, mask))
    assert not torch.equal(method.targets(images, draws), method.targets(other, draws))
    shown = small_method("beit", hide=False)
    assert not torch.equal(shown.predict(images, mask), shown.predict(other, mask))


def test_the_loss_is_the_cross_entropy_of_hidden_patches():
    method = small_method("beit")
    images, mask, draws = views_of(method)
    logits = method.head(method.backbone(images, mask=mask).patch_tokens)
    expected = F.cross_entropy(logits[mask], method.tokenizer.codes(images)[mask])
    torch.testing.assert_close(method.loss((images, mask, draws)), expected)


def test_shuffled_codes_keep_their_frequencies_and_say_nothing():
    method, plain = small_method("beit", shuffle="codes"), small_method("beit")
    images, _, draws = views_of(method)
    codes, shuffled = plain.targets(images, draws), method.targets(images, draws)
    assert torch.equal(codes.flatten().bincount(minlength=5), shuffled.flatten().bincount(minlength=5))
    assert not torch.equal(codes, shuffled)
    again = method.targets(images, views_of(method, seed=1)[2])
    assert not torch.equal(again, shuffled)  # another deal every step


def test_renamed_codes_say_as_much_under_other_names():
    method, plain = small_method("beit", shuffle="names"), small_method("beit")
    images, _, draws = views_of(method)
    codes, renamed = plain.targets(images, draws), method.targets(images, draws)
    assert torch.equal(method.names.sort(1).values, torch.arange(5).expand(16, 5))
    for n in range(16):  # at each position the same codes get the same new names
        assert torch.equal(method.names[n][codes[:, n]], renamed[:, n])
    assert len(method.names.unique(dim=0)) > 1


def test_patch_codes_are_the_nearest_centroids():
    images = torch.rand(3, 2, 8, 12)
    for standardize in (True, False):
        tokenizer = PatchCodes.fit(images, 5, 4, standardize, seed=1)
        codes = tokenizer.codes(images)
        assert codes.shape == (3, 6) and codes.dtype == torch.int64 and set(codes.flatten().tolist()) == set(range(5))
        patches = patchify(images, 4)
        if standardize:
            patches = (patches - patches.mean(2, keepdim=True)) / patches.std(2, keepdim=True)
        distance = (patches[:, :, None] - tokenizer.centroids).square().sum(3)
        assert torch.equal(codes, distance.argmin(2))
        same = torch.equal(codes, tokenizer.codes(0.3 * images + 0.2))
        assert same == standardize  # light does not enter standardised patches


def test_the_tokenizer_is_a_frozen_copy():
    tokenizer = DVAE(small_convnet(3, (4, 8)), num_codes=6, code_dim=4)
    method = small_method("beit", tokenizer=tokenizer).train()
    before = {name: value.clone() for name, value in method.tokenizer.state_dict().items()}
    method.loss(views_of(method)).backward()
    assert all(p.grad is None and not p.requires_grad for p in method.tokenizer.parameters())
    assert all(p.requires_grad for p in tokenizer.parameters())
    for name, value in method.tokenizer.state_dict().items():  # batch statistics too
        assert torch.equal(before[name], value), name
    assert method.head.out_features == 6 and method.backbone.mask_token.grad.abs().sum() > 0


def test_dvae_paints_what_its_codes_say():
    method = small_method("dvae", "convnet").eval()
    images, noise = views_of(method)
    logits = method.logits(images)
    assert noise.shape == logits.shape == (8, 16, 6)
    assert torch.equal(method.codes(images), logits.argmax(2))
    shares = F.one_hot(method.codes(images), 6).float()
    cells = method.embed.weight.T[method.codes(images)].permute(0, 2, 1).unflatten(2, (4, 4))
    expected = unpatchify(method.decoder(cells).flatten(2).mT, 4, (4, 4), 3)
    torch.testing.assert_close(method.paint(shares, (4, 4)), expected)


def test_dvae_cools_and_lets_the_kl_in():
    method = small_method("dvae", end_temperature=0.25, beta=0.02)
    assert method.temperature == 1 and method.beta == 0
    for progress in (0.5, 1.0):
        method.after_step(progress)
        assert float(method.temperature) == pytest.approx(0.25**progress)
        assert float(method.beta) == pytest.approx(0.02 * progress)
    terms = method.loss(views_of(method))
    torch.testing.assert_close(terms.total, terms.reconstruction + 0.02 * terms.kl)


def test_dvae_learns_a_vocabulary_of_two_patches():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(2, (64, 1, 4, 4), generator=generator)
    images = (255 * kind.repeat_interleave(4, 2).repeat_interleave(4, 3)).to(torch.uint8)
    whole = ViewPolicy(16, scale=(1, 1), ratio=(1, 1), flip=0, jitter_probability=0, grayscale=0)
    torch.manual_seed(0)
    method = DVAE(small_convnet(1, (8, 8)), policy=whole, num_codes=4, code_dim=8)
    data = ImageSet("dots", "train", images, labels=torch.zeros(64).long(), classes=["a"])
    history = fit(method, data, steps=60, batch_size=32, lr=1e-2, device="cpu", progress=False)
    assert history.loss[-1] < 0.1 * history.loss[0]
    x = whole(images)
    codes = method.eval().codes(x)
    for code in codes.unique():  # every code in use stands for one of the two patches
        share = kind.flatten(1)[codes == code].float().mean()
        assert min(share, 1 - share) < 0.1
    assert math.isfinite(history.loss[-1]) and len(codes.unique()) >= 2


def test_bad_input_is_refused():
    vit = VisionTransformer(16, 4, 3, 12, 1, num_heads=2)
    tokenizer = PatchCodes(torch.randn(5, 48), 4)
    with pytest.raises(ValueError, match="expected a vision transformer with mask tokens, got .*StagedConvNet"):
        BEiT(small_convnet(3), tokenizer)
    with pytest.raises(ValueError, match="tokenizer: expected a module with codes"):
        BEiT(vit, torch.nn.Identity())
    with pytest.raises(ValueError, match="unknown shuffle 'all'; known: codes, names, none"):
        BEiT(vit, tokenizer, shuffle="all")
    with pytest.raises(ValueError, match="centroids: expected"):
        PatchCodes(torch.randn(5, 47), 4)
    with pytest.raises(ValueError, match="k: expected"):
        PatchCodes.fit(torch.rand(1, 3, 8, 8), 9, 4)
    with pytest.raises(ValueError, match="num_codes"):
        DVAE(vit, num_codes=1)
    with pytest.raises(ValueError, match="end_temperature"):
        DVAE(vit, end_temperature=0.0)
