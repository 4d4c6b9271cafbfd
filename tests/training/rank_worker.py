"""What each rank does in test_ranks.py: run every case, and leave its weights and errors in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import METHODS, Method, create_method
from sslcore.training import NonFiniteLossError, fit
from tests.methods.small_methods import SMALL, small_set
from tests.training.small_runs import line, moco, pixels

RUN = {"batch_size": 12, "lr": 0.05, "optimizer": "sgd", "device": "cpu", "views_per_rank": False}


def build(name: str, network: str) -> Method:
    torch.manual_seed(0)
    vit = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
    backbone = VisionTransformer(**vit) if network == "vit" else small_convnet(3, (4, 8))
    settings = dict(SMALL[name])
    if name == "simclr" and network == "vit":
        settings["projector_norm"] = None
    return create_method(name, backbone, **settings)


def cases(ranks: int) -> list[tuple[str, str, int]]:
    """Method, network and steps. Ten steps of SimCLR without BatchNorm; fewer of everything else."""
    if ranks == 3:
        return [("simclr", "vit", 3), ("vicreg", "convnet", 3), ("moco", "convnet", 3)]
    pairs = [(name, "vit" if name in ("mae", "dino") else "convnet", 3) for name in METHODS]
    return [("simclr", "vit", 10), *pairs]


def train(name: str, network: str, steps: int) -> dict[str, Any]:
    method = build(name, network)
    history = fit(method, small_set(), steps=steps, **RUN)
    assert method.group is None
    return {"loss": history.loss, "state": method.state_dict()}


def failure(kind: type[Exception], act: Any) -> str:
    try:
        act()
    except kind as error:
        return str(error)
    return "no error"


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
    if size == 2:
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
        out["uneven"] = failure(ValueError, lambda: fit(line(), pixels(), steps=1, batch_size=5, device="cpu"))
        spoil = {"callback": LateNaN(), "callback_every": 1}
        out["nan"] = failure(NonFiniteLossError, lambda: fit(line(), pixels(), **run, **spoil))
        out["own_views"] = fit(line(), pixels(), **run).loss
    torch.save(out, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
