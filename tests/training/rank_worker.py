"""What each rank does in test_ranks.py: run every case, and leave its weights and errors in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.data import stream_images
from sslcore.methods import METHODS, Method, create_method
from sslcore.training import NonFiniteLossError, fit
from sslcore.training.ranks import Ranks, leave_group
from sslcore.training.sharding import sharded_copy
from tests.methods.small_methods import OWN_NETWORK, SMALL, VIT_ONLY, small_set
from tests.training.small_runs import Line, line, moco, pixels

RUN = {"batch_size": 12, "lr": 0.05, "optimizer": "sgd", "device": "cpu", "views_per_rank": False}
# Not every small net will do: BatchNorm behind the nearly equal class tokens of a young ViT multiplies a change of the
# weights by 1e-7 into one of 1e-3 in ten steps, on one process too.
TEN_STEPS = [(name, "vit" if name == "simclr" else "convnet", 10) for name in ("simclr", "swav", "vicreg", "lejepa")]
GENTLE = {"vicreg": 0.01, "lejepa": 0.01}
EVERY = [(name, "vit" if name in (*VIT_ONLY, "dino") else "convnet", 3) for name in METHODS]
REFUSED = ("ebm",)  # under FSDP2: it takes gradients inside its loss
RESUMED = ("moco", "convnet", 6)


def build(name: str, network: str) -> Method:
    torch.manual_seed(0)
    vit = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
    backbone = VisionTransformer(**vit) if network == "vit" else small_convnet(3, (4, 8))
    if name in OWN_NETWORK:
        backbone = OWN_NETWORK[name]()
    settings = dict(SMALL[name])
    if name == "simclr" and network == "vit":
        settings["projector_norm"] = None
    return create_method(name, backbone, **settings)


def cases(ranks: int) -> list[tuple[str, str, int]]:
    """Method, network and steps."""
    return [*TEN_STEPS, *EVERY] if ranks == 2 else [*TEN_STEPS, ("moco", "convnet", 3)]


def sharded_cases(ranks: int) -> list[tuple[str, str, int]]:
    """The same under FSDP2."""
    few = [TEN_STEPS[0], ("moco", "convnet", 3)]
    return [few[0], *(case for case in EVERY if case[0] not in REFUSED)] if ranks == 2 else few


class SeesWholeWeights:
    """Callback that notes whether it was given plain tensors, and what they sum to."""

    def __call__(self, step: int, method: torch.nn.Module) -> dict[str, float]:
        weights = list(method.parameters())
        assert not any(hasattr(weight, "full_tensor") for weight in weights)
        return {"sum": float(sum(weight.detach().double().sum() for weight in weights))}


def train(name: str, network: str, steps: int, data: Any = None, **settings: Any) -> dict[str, Any]:
    method = build(name, network)
    rate = {"lr": GENTLE[name]} if steps == 10 and name in GENTLE else {}
    history = fit(method, small_set() if data is None else data, steps=steps, **{**RUN, **rate, **settings})
    assert method.group is None and not hasattr(next(method.parameters()), "full_tensor")
    return {"loss": history.loss, "state": method.state_dict()}


def begin(path: Path, stop: int = 3, **settings: Any) -> None:
    """Six steps of a run that breaks off after `stop` of them, with a file at `path`."""

    class Stop(Exception):
        pass

    def callback(done: int, method: torch.nn.Module) -> None:
        if done == stop + 1:
            raise Stop

    every = {"checkpoint": path, "checkpoint_every": 1, "callback": callback, "callback_every": 1}
    try:
        train(*RESUMED, **every, **settings)
    except Stop:
        pass


def failure(kind: type[Exception], act: Any) -> str:
    try:
        act()
    except kind as error:
        return str(error)
    return "no error"


class WithScalar(Line):
    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))


class LateNaN:
    """Callback that spoils the weights of one rank only."""

    def __call__(self, step: int, method: torch.nn.Module) -> None:
        if step == 2 and dist.get_rank() == 1:
            method.backbone.bias.data.fill_(float("nan"))


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    out: dict[str, Any] = {"-".join(map(str, case)): train(*case) for case in cases(size)}
    for how in ({}, {"fsdp": True}):
        mine = folder / f"resumed{len(how)}.pt"
        if rank == 0:
            mine.write_bytes((folder / "single.pt").read_bytes())
        dist.barrier()
        out[f"single to {size}, {len(how)}"] = train(*RESUMED, checkpoint=mine, optimizer="adamw", **how)
        begin(folder / f"several{len(how)}.pt", optimizer="adamw", **how)
    out["stream"] = train("simclr", "vit", 4, data=stream_images(folder / "shards", img_size=16, workers=1))
    for case in sharded_cases(size):
        out["fsdp-" + "-".join(map(str, case))] = train(*case, fsdp=True)
    if size == 2:
        watch = {"callback": SeesWholeWeights(), "callback_every": 2}
        out["watched"] = fit(build("simclr", "vit"), small_set(), steps=4, fsdp=True, **RUN, **watch).values
        sharded = sharded_copy(build("dino", "vit"), Ranks(), torch.device("cpu"))
        parts = sum(weight.to_local().numel() for weight in sharded.parameters())
        out["share"] = parts / sum(weight.numel() for weight in sharded.parameters())
        out["clipped"] = train("simclr", "vit", 3, fsdp=True, clip_norm=0.1)
        out["channels last"] = train("vicreg", "convnet", 3, fsdp=True, channels_last=True)
        out["recomputed"] = train("simclr", "vit", 3, fsdp=True, activation_checkpointing=True)
        out["bf16"] = train("simclr", "vit", 3, fsdp=True, precision="bf16")["loss"]
        out["lars"] = train("simclr", "vit", 3, fsdp=True, optimizer="lars", lr=0.5)
        clustered = build("deeper_cluster", "convnet")
        fit(clustered, clustered.batches(small_set().images, every=2), steps=5, batch_size=12, device="cpu")
        out["clustered"] = clustered.state_dict()
        fresh, run = build("deeper_cluster", "convnet"), {"steps": 1, "batch_size": 12, "device": "cpu", "fsdp": True}
        source = fresh.batches(small_set().images, every=2)
        out["fsdp clusters"] = failure(ValueError, lambda: fit(fresh, source, **run))
        run = {"batch_size": 6, "device": "cpu", "steps": 8}
        whole, resumed, path = moco(), moco(), folder / "run.pt"
        fit(whole, pixels(20, 8), **run)
        fit(moco(), pixels(20, 8), checkpoint=path, **run)
        done = torch.load(path, weights_only=True)["step"]
        fit(resumed, pixels(20, 8), checkpoint=path, **run)
        out["resume"] = {"whole": whole.state_dict(), "resumed": resumed.state_dict(), "step": done}
        out["files"] = sorted(file.name for file in folder.glob("run.pt*"))
        dist.barrier()
        private = folder / f"private{rank}.pt"
        if rank == 0:
            path.rename(private)
        dist.barrier()
        out["private"] = failure(ValueError, lambda: fit(moco(), pixels(20, 8), checkpoint=private, **run))
        sharded = {"checkpoint": private, "fsdp": True, **run}
        out["private fsdp"] = failure(ValueError, lambda: fit(moco(), pixels(20, 8), **sharded))
        for name in REFUSED:
            out[f"refused {name}"] = failure(ValueError, lambda name=name: train(name, "convnet", 2, fsdp=True))
        out["scalar"] = failure(ValueError, lambda: fit(WithScalar(), pixels(), fsdp=True, **run))
        out["compiled"] = failure(ValueError, lambda: fit(line(), pixels(), fsdp=True, compile=True, **run))
        out["uneven"] = failure(ValueError, lambda: fit(line(), pixels(), steps=1, batch_size=5, device="cpu"))
        spoil = {"callback": LateNaN(), "callback_every": 1}
        out["nan"] = failure(NonFiniteLossError, lambda: fit(line(), pixels(), **run, **spoil))
        out["own_views"] = fit(line(), pixels(), **run).loss
    torch.save(out, folder / f"rank{rank}.pt")
    leave_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
