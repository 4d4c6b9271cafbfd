"""Claims about several processes, each tested on 2 and on 3 of them.

- Every objective in OBJECTIVES gives each rank the value of the global batch, and the parameter gradient
  DistributedDataParallel averages is that of the global batch in one process.
- sinkhorn_knopp balances the global batch, in both of its forms.
- gather_with_grad and mean_over_ranks have exact adjoints. group=None stays local while torch.distributed runs.
- Unequal batches and groups a process is not in are refused.
"""

from __future__ import annotations

import functools

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslcore.distributed import from_first_rank, gather_with_grad, is_distributed, mean_over_ranks, rank, world_size
from sslcore.objectives import (
    barlow_twins,
    contrastive,
    dino_loss,
    info_nce,
    leave_one_out_knn,
    lejepa,
    masked_latent_loss,
    mined_triplet_loss,
    nt_xent,
    random_slices,
    sigreg,
    sinkhorn_knopp,
    supcon,
    swapped_prediction,
    update_center,
    vicreg,
)

ROWS, WIDTH = 3, 5  # rows of one rank, width of the inputs


def queue(dim: int) -> Tensor:
    return torch.randn(7, dim, generator=torch.Generator().manual_seed(5))


def numbers(rows: Tensor, group) -> Tensor:
    """Number of the image behind each of this rank's rows."""
    return torch.arange(len(rows)) + rank(group) * ROWS


def leave_one_out(a: Tensor, b: Tensor, group, missing: str) -> Tensor:
    ids = numbers(a, group).repeat(2)
    return leave_one_out_knn(torch.cat([a, b]), ids % 3, 4, 0.2, ids=ids, missing=missing, group=group)


def agreeing(a: Tensor, b: Tensor, group, regularizer: str) -> Tensor:
    slices = random_slices(4, 6, torch.Generator().manual_seed(6))
    return lejepa(torch.stack([a, b]), 0.3, regularizer=regularizer, slices=slices, group=group).total


def two_views(a: Tensor, b: Tensor, group, num_slices: int = 6) -> Tensor:
    slices = random_slices(4, num_slices, torch.Generator().manual_seed(6))
    return sigreg(torch.stack([a, b]), slices=slices, group=group)


def self_distillation(a: Tensor, b: Tensor, group) -> Tensor:
    """DINO over a batch: the centre is that of all ranks; the loss itself is a mean over images."""
    teacher = torch.stack([a, b]).detach() * 3
    center = update_center(torch.ones(a.shape[1]), teacher, 0.5, group)
    return mean_over_ranks(dino_loss(torch.stack([a, b]), teacher, center), group)


def swapped(a: Tensor, b: Tensor, group) -> Tensor:
    """SwAV over a batch: codes are balanced over all ranks; the loss itself is a mean over images."""
    scores = torch.stack([a, b])
    codes = torch.stack([sinkhorn_knopp(view.detach(), 0.3, 3, group) for view in scores])
    return mean_over_ranks(swapped_prediction(scores, codes), group)


def hidden_cells(a: Tensor, b: Tensor, group) -> Tensor:
    """CNN-JEPA's loss on maps of two cells: every first one is hidden, of the second ones those of even images."""
    even = numbers(a, group) % 2 == 0
    mask = torch.stack([torch.ones_like(even), even], dim=1)
    return masked_latent_loss(torch.stack([a, b], 1), torch.stack([b, a], 1), mask, group=group)


# A line each: name: (embedding width, objective). Widths above and below 3 ranks x 3 rows take both Gram sides.
OBJECTIVES = {
    "nt_xent": (4, functools.partial(nt_xent, temperature=0.2)),
    "nt_xent tiled": (4, functools.partial(nt_xent, temperature=0.2)),
    "info_nce": (4, functools.partial(info_nce, temperature=0.2)),
    "info_nce tiled": (4, functools.partial(info_nce, temperature=0.2)),
    "info_nce queue": (4, lambda a, b, group: info_nce(a, b, queue(4), 0.2, group)),
    "barlow_twins narrow": (4, functools.partial(barlow_twins, lambd=0.1)),
    "barlow_twins wide": (12, functools.partial(barlow_twins, lambd=0.1)),
    "dino_loss, moving centre": (4, self_distillation),
    "sinkhorn_knopp": (4, swapped),
    "supcon": (4, lambda a, b, group: supcon(torch.cat([a, b]), numbers(a, group).repeat(2) % 3, 0.2, group)),
    "leave-one-out kNN": (4, lambda a, b, group: leave_one_out(a, b, group, "drop")),
    "leave-one-out kNN, mended": (4, lambda a, b, group: leave_one_out(a, b, group, "add")),
    "masked_latent_loss": (4, hidden_cells),
    "mined_triplet_loss": (4, functools.partial(mined_triplet_loss, num_negatives=20)),  # all: no lots are drawn
    "vicreg narrow": (4, vicreg),
    "vicreg wide": (12, vicreg),
    "lejepa": (4, functools.partial(agreeing, regularizer="sigreg")),
    "lejepa moments": (4, functools.partial(agreeing, regularizer="moments")),
    "sigreg": (4, two_views),
    "sigreg twin": (4, functools.partial(two_views, num_slices=1000)),  # enough angles
}


def model(dim: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, dim))


def batch(num: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(num, WIDTH, generator=generator)
    return images, images + 0.3 * torch.randn(num, WIDTH, generator=generator)


def codes(own: slice, group) -> dict[str, Tensor]:
    """Sinkhorn codes of this rank's rows; epsilon 0.5 takes the scaling form, 0.01 the logarithmic one."""
    scores = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))[own].tanh()
    return {str(epsilon): sinkhorn_knopp(scores, epsilon, 3, group) for epsilon in (0.5, 0.01)}


def measure(network: nn.Module, name: str, views: tuple[Tensor, Tensor], group) -> dict[str, Tensor]:
    network.zero_grad()
    z0, z1 = network(torch.cat(views)).chunk(2)
    before = contrastive.TILED_SIMILARITIES
    contrastive.TILED_SIMILARITIES = 1 if "tiled" in name else before
    loss = OBJECTIVES[name][1](z0, z1, group=group)
    contrastive.TILED_SIMILARITIES = before
    loss = loss if isinstance(loss, Tensor) else loss.total
    loss.backward()
    return {"value": loss.detach(), "gradient": torch.cat([p.grad.flatten() for p in network.parameters()])}


def refusal(function, *args) -> str:
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    return "not refused"


def worker(this: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=this, world_size=ranks)
    group, results = dist.group.WORLD, {}
    own = slice(this * ROWS, (this + 1) * ROWS)
    views = tuple(view[own] for view in batch(ranks * ROWS))
    for name, (dim, _) in OBJECTIVES.items():
        results[name] = measure(DistributedDataParallel(model(dim)), name, views, group)
        results[f"{name} local"] = measure(model(dim), name, views, None)
    results["codes"], results["codes local"] = codes(own, group), codes(own, None)
    results["sizes"] = [world_size(), rank(), is_distributed(), world_size(group), rank(group), is_distributed(group)]

    x = torch.full((2, 3), float(this), requires_grad=True)
    gathered = gather_with_grad(x, group)
    weights = torch.arange(gathered.numel()).reshape(gathered.shape) * (this + 1.0)
    (gathered * weights).sum().backward()
    results["gather"] = {"value": gathered.detach(), "gradient": x.grad}
    transposed = torch.arange(6.0).reshape(2, 3).T + this  # not contiguous
    results["gather transposed"] = gather_with_grad(transposed, group)

    x = torch.tensor([1.0, 2.0]) * (this + 1)
    x.requires_grad_()
    mean = mean_over_ranks(x, group)
    (mean * torch.tensor([1.0, 10.0]) * (this + 1)).sum().backward()
    results["mean"] = {"value": mean.detach(), "gradient": x.grad}
    results["center"] = update_center(torch.ones(4), torch.full((2, 4), float(this)), 0.5, group)

    torch.manual_seed(100 + this)  # ranks whose random numbers differ still take the same directions
    results["first"] = from_first_rank(torch.full((2,), float(this)), group)
    samples = torch.randn(9, 4, generator=torch.Generator().manual_seed(7)).split([2, 3, 4])[this].clone()
    results["drawn"] = sigreg(samples.requires_grad_(), 5, group=group)
    results["drawn"].backward()
    results["drawn gradient"] = samples.grad

    results["unequal gather"] = refusal(gather_with_grad, torch.zeros(this + 1, 2), group)
    results["unequal mean"] = refusal(mean_over_ranks, torch.zeros(this + 1), group)
    results["unequal batch"] = refusal(nt_xent, torch.randn(this + 2, 3), torch.randn(this + 2, 3), 0.5, group)
    results["one image a rank"] = nt_xent(torch.eye(3)[this][None], torch.eye(3)[this][None], 0.5, group)
    pair = dist.new_group([0, 1])
    results["outside"] = refusal(world_size, pair) if this > 1 else gather_with_grad(torch.tensor([float(this)]), pair)
    torch.save(results, f"{folder}/{this}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3], ids=["two ranks", "three ranks"])
def results(request, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, (request.param, folder.as_posix()), nprocs=request.param)
    return [torch.load(folder / f"{this}.pt") for this in range(request.param)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_and_gradient_are_those_of_the_global_batch(results, name):
    expected = measure(model(OBJECTIVES[name][0]), name, batch(len(results) * ROWS), None)
    assert expected["gradient"].abs().max() > 1e-3
    for result in results:
        torch.testing.assert_close(result[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_a_group_each_rank_is_alone(results, name):
    views = batch(len(results) * ROWS)
    for this, result in enumerate(results):
        own = slice(this * ROWS, (this + 1) * ROWS)
        expected = measure(model(OBJECTIVES[name][0]), name, (views[0][own], views[1][own]), None)
        torch.testing.assert_close(result[f"{name} local"], expected)


def test_codes_are_those_of_the_global_batch(results):
    expected = codes(slice(0, len(results) * ROWS), None)
    for this, result in enumerate(results):
        own = slice(this * ROWS, (this + 1) * ROWS)
        for epsilon, value in expected.items():
            torch.testing.assert_close(result["codes"][epsilon], value[own], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(result["codes local"][epsilon], codes(own, None)[epsilon])
            assert (result["codes"][epsilon] - result["codes local"][epsilon]).abs().max() > 0.01


def test_sizes(results):
    for this, result in enumerate(results):
        assert result["sizes"] == [1, 0, False, len(results), this, True]


def test_gather_is_in_rank_order_and_its_gradient_sums_over_ranks(results):
    ranks = len(results)
    value = torch.arange(float(ranks)).repeat_interleave(2)[:, None].expand(-1, 3)
    weights = torch.arange(ranks * 6.0).reshape(ranks, 2, 3) * sum(range(1, ranks + 1))
    for this, result in enumerate(results):
        torch.testing.assert_close(result["gather"], {"value": value.contiguous(), "gradient": weights[this]})
        expected = torch.cat([torch.arange(6.0).reshape(2, 3).T + other for other in range(ranks)])
        torch.testing.assert_close(result["gather transposed"], expected)


def test_mean_and_its_gradient_average_over_ranks(results):
    average = sum(range(1, len(results) + 1)) / len(results)
    for result in results:
        expected = {"value": torch.tensor([1.0, 2.0]) * average, "gradient": torch.tensor([1.0, 10.0]) * average}
        torch.testing.assert_close(result["mean"], expected)
        torch.testing.assert_close(result["center"], torch.full((4,), 0.5 + 0.5 * (average - 1)))


def test_sigreg_shares_directions_and_takes_unequal_batches(results):
    ranks = len(results)
    samples = torch.randn(9, 4, generator=torch.Generator().manual_seed(7))[: sum([2, 3, 4][:ranks])].requires_grad_()
    torch.manual_seed(100)
    expected = sigreg(samples, 5)
    expected.backward()
    for result in results:
        assert result["first"].tolist() == [0.0, 0.0]
        torch.testing.assert_close(result["drawn"], expected)
    # Data-parallel training averages the ranks' gradients, hence the division.
    gradient = torch.cat([result["drawn gradient"] for result in results]) / ranks
    torch.testing.assert_close(gradient, samples.grad)


def test_unequal_batches_are_refused_on_every_rank(results):
    for result in results:
        for case in ("unequal gather", "unequal mean", "unequal batch"):
            assert "expected the same shape on every rank, got [(" in result[case]


def test_one_image_a_rank_is_enough(results):
    ranks = len(results)
    eye = torch.eye(3)[:ranks]
    for result in results:
        torch.testing.assert_close(result["one image a rank"], nt_xent(eye, eye, 0.5))


def test_subgroups(results):
    for this, result in enumerate(results):
        if this < 2:
            assert result["outside"].tolist() == [0.0, 1.0]
        else:
            assert "group: expected" in result["outside"]


def test_one_process_needs_nothing():
    x = torch.randn(3, 2)
    assert gather_with_grad(x) is x and mean_over_ranks(x) is x and from_first_rank(x) is x
    assert (world_size(), rank(), is_distributed()) == (1, 0, False)
    for function in (world_size, rank, is_distributed):
        with pytest.raises(ValueError, match="init_process_group"):
            function(object())
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        gather_with_grad([1.0])
