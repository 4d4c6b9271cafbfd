"""DeeperCluster: name the rotation and the cluster of an image at once; cluster again as the features get better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslcore.distributed import gather_with_grad
from sslcore.methods.method import Method, view_size
from sslcore.objectives import HierarchicalTerms, hierarchical_cross_entropy, pca_whiten, two_level_kmeans
from sslcore.validate import check_images, require
from sslcore.views import gentle_policy, normalize, rotate_quarters


class DeeperCluster(Method):
    """Joint labels (super-cluster and rotation, sub-cluster) by two-level k-means (Caron et al. 2019, 1905.01278).

    Collapse guard: k-means fills every cluster, and batches drawn evenly over sub-clusters (`batches`) keep a large one
    from winning. Special cases: num_super=1, rotations=1 is DeepCluster; num_super=1, num_sub=1 is RotNet.
    BatchNorm: all rotations go through in one pass. A batch of one rotation would give it away.

    num_images: size of the set that is clustered; labels are buffers, so a checkpoint carries them.
    num_super, num_sub: clusters of each level. Paper 4 and 80000; here 2 and 20. rotations: 4, or 1 for none.
    shared_heads: one sub-cluster head for all super-classes. With num_super=1 that is plain multi-task learning.
    pca_dim: axes kept before clustering; paper 4096; here at most 64.
    policy: view before rotation; None takes the gentle one (crop, flip, mild colour); the paper crops and flips.
    The paper gives each rotation its own GPUs; here each image of a batch draws its rotation. Heads start anew after
    each clustering, as in the paper; its optimiser for them does too, ours goes on.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_images: int,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        num_super: int = 2,
        num_sub: int = 20,
        rotations: int = 4,
        shared_heads: bool = False,
        pca_dim: int = 64,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(rotations in (1, 4), f"rotations: expected 1 or 4, got {rotations}")
        require(num_super >= 1 and num_sub >= 1, f"num_super, num_sub: expected >= 1, got {num_super}, {num_sub}")
        require(num_images >= num_super, f"num_images: expected at least {num_super}, got {num_images}")
        self.policy, self.rotations, self.num_super, self.num_sub = policy, rotations, num_super, num_sub
        self.pca_dim = min(pca_dim, backbone.embed_dim)
        self.heads = 1 if shared_heads else num_super * rotations
        self.super_head = nn.Linear(backbone.embed_dim, num_super * rotations)
        self.sub_head = nn.Linear(backbone.embed_dim, self.heads * num_sub)
        self.register_buffer("supers", torch.randint(num_super, (num_images,)))
        self.register_buffer("subs", torch.randint(num_sub, (num_images,)))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def reassign(self, images: Tensor, batch_size: int = 1024) -> None:
        """Cluster the whole set (N, C, H, W), uint8, unrotated and uncropped, and start the heads anew."""
        check_images("images", images)
        require(len(images) == len(self.supers), f"images: expected {len(self.supers)}, got {len(images)}")
        if self.num_super * self.num_sub == 1:
            return  # RotNet: nothing to cluster, so nothing to start anew
        seed, training = int(self.rounds), self.backbone.training
        self.backbone.eval()
        features = torch.cat([self.features(normalize(part)) for part in images.split(batch_size)])
        self.backbone.train(training)
        rows = pca_whiten(features.float(), self.pca_dim)
        generator = torch.Generator().manual_seed(seed)
        found = torch.stack(two_level_kmeans(rows, self.num_super, self.num_sub, generator=generator))
        # Rounding may differ between ranks; all of them take the labels of the first.
        self.supers, self.subs = gather_with_grad(found[None], self.group)[0].clone()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for head in (self.super_head, self.sub_head):
                head.reset_parameters()
        self.rounds.add_(1)

    def batches(self, images: Tensor, every: int, uniform: bool = True) -> Callable[..., dict[str, Any]]:
        """The data argument of `fit`: batches of images (N, C, H, W), clustered again every so many steps.

        images: on the device of the training. uniform: draw a sub-cluster first and an image of it then, which evens
        out a long tail; False draws images. Raises ValueError under fsdp, which trains a copy of this method in parts.
        """
        require(every >= 1, f"every: expected at least 1 step, got {every}")

        def batch(step: int, batch_size: int, generator: torch.Generator) -> dict[str, Any]:
            several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
            require(self.group is not None or not several, "batches: expected training without fsdp, got it with")
            if step % every == 0:
                self.reassign(images)
            clusters = self.supers * self.num_sub + self.subs
            weights = 1 / clusters.bincount()[clusters] if uniform else torch.ones(len(images), device=images.device)
            index = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
            return {"images": images[index], "labels": None, "index": index}

        return batch

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """One view of each image, turned by its own number of quarters, with the rotation and the image's number."""
        policy = gentle_policy(view_size(self, batch)) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        source = images.device if generator is None else generator.device
        turns = torch.randint(self.rotations, (len(images),), generator=generator, device=source).to(images.device)
        return {"images": rotate_quarters(images, turns), "rotations": turns, "index": batch["index"]}

    def loss(self, views: dict[str, Tensor]) -> HierarchicalTerms:
        """Cross-entropy of the super-class (super-cluster and rotation) and of the sub-cluster within it."""
        features = self.features(views["images"])
        supers = self.supers[views["index"]] * self.rotations + views["rotations"]
        subs = self.sub_head(features).unflatten(1, (self.heads, self.num_sub))
        subs = subs.expand(-1, self.num_super * self.rotations, -1)
        return hierarchical_cross_entropy(self.super_head(features), subs, supers, self.subs[views["index"]])
