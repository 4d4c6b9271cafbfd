"""EBM: a network whose score is high on images and low on its own dreams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.distributed import gather_with_grad
from sslcore.methods.method import Method, view_size
from sslcore.methods.sampling import ReplayBuffer, langevin
from sslcore.objectives import EnergyTerms, contrastive_divergence
from sslcore.validate import require
from sslcore.views import ViewPolicy


def plain_policy(size: int) -> ViewPolicy:
    """The image as it is."""
    return ViewPolicy(size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=0.0)


class EBM(Method):
    """Energy-based pre-training with Langevin samples and a replay buffer: the sampler of JEM (Grathwohl et al. 2020,
    arXiv 1912.03263) without its labels.

    score(x) is a linear read-out of the descriptor, minus the energy; the model's density is exp(score) / Z. Give it a
    backbone without batch norm, which would tie samples together and score differently in training and in eval.

    img_size: side of images and samples. buffer_size, steps, step_size, sigma, restart: chains kept, Langevin steps an
        update, their length and noise, share of chains begun anew from uniform noise. JEM: 10000, 20, 1, 0.01, 0.05.
    data_sigma: noise on real images; JEM 0.03. Pixels here run from -2 to 2, twice JEM's range.
    l2: weight of the squared scores (Du & Mordatch 2019); 0 in JEM, which diverges now and then.
    policy: ViewPolicy of the images; None takes them as they are. One update costs steps + 2 passes over a batch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        img_size: int,
        policy: Any = None,
        pool: str = "auto",
        buffer_size: int = 10000,
        steps: int = 20,
        step_size: float = 1.0,
        sigma: float = 0.01,
        restart: float = 0.05,
        data_sigma: float = 0.03,
        l2: float = 0.0,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(steps >= 1, f"steps: expected at least 1, got {steps}")
        self.policy, self.steps, self.step_size, self.sigma = policy, steps, step_size, sigma
        self.restart, self.data_sigma, self.l2 = restart, data_sigma, l2
        self.head = nn.Linear(backbone.embed_dim, 1)
        self.replay = ReplayBuffer(buffer_size, (backbone.in_chans, img_size, img_size), bound=2.0)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Noised images and all random numbers of the chains, each with B in front."""
        policy = plain_policy(view_size(self, batch)) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        count, size = len(images), len(self.replay.images)
        require(count <= size, f"buffer_size: expected at least the batch of {count}, got {size}")
        drawn = {"generator": generator, "device": images.device}
        return {
            "images": images + self.data_sigma * torch.randn(images.shape, **drawn),
            "slots": torch.rand(size, **drawn).argsort()[:count],
            "fresh": torch.rand(count, **drawn) < self.restart,
            "uniform": torch.rand(images.shape, **drawn),
            "noise": torch.randn(count, self.steps, *images.shape[1:], **drawn),
        }

    def score(self, images: Tensor) -> Tensor:
        """(B,) minus the energy of float images."""
        return self.head(self.features(images))[:, 0]

    def sample(self, views: dict[str, Tensor]) -> Tensor:
        """(B, C, H, W): the chains after their Langevin steps; in training they go back into the buffer."""
        training = self.training
        self.eval()
        starts = self.replay.starts(views["slots"], views["fresh"], views["uniform"])
        images = langevin(self.score, starts, views["noise"], self.step_size, self.sigma)
        self.train(training)
        if training:
            self.replay.write(gather_with_grad(views["slots"], self.group), gather_with_grad(images, self.group))
        return images

    def loss(self, views: dict[str, Tensor]) -> EnergyTerms:
        """Contrastive divergence between the images and the samples."""
        fake = self.sample(views)
        real, sampled = self.score(torch.cat([views["images"], fake])).chunk(2)
        return contrastive_divergence(real, sampled, self.l2)
