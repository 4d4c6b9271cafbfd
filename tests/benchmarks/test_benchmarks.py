"""The race: it runs at toy size, refuses to race unequal results, counts memory, and its table is that of the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks import plain
from tests.benchmarks.__main__ import main, run
from tests.benchmarks.cases import BUILDERS, SIZES, cases
from tests.benchmarks.measure import peak_bytes, race
from tests.benchmarks.pipelines import lightly_loader
from tests.benchmarks.table import END, RESULTS, START, block, read_results, row, table, with_block

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def a_case(ours=0.002, peer=0.001, memory=2**20):
    return {
        "name": "nt_xent", "size": "N=2 D=2", "seconds": {"ours": ours, "lightly": peer, "plain torch": 0.5},
        "peak_bytes": {"ours": memory, "lightly": 4 * memory, "plain torch": 3 * memory}, "floor_seconds": 0.0005,
        "failures": {"torch.compile": "InductorError"},
    }  # fmt: skip


def a_result(**changes):
    rates = {"bytes": 1e11, "flops": 5e10}
    facts = {"device": "cpu, 1 threads", "date": "2026-01-02", "versions": {"torch": "2.9"}, "rates": rates}
    return {**facts, "cases": [a_case(**changes)]}


def test_every_row_at_toy_size(capsys):
    assert main(["--scale", "tiny"]) == 0
    printed = capsys.readouterr().out
    for name in BUILDERS:
        assert printed.count(f"| {name}, ") == 1


def test_a_run_is_complete_and_can_be_written():
    result = run("tiny", CPU, ["nt_xent", "swav"], budget=0.0, rounds=3)
    assert json.loads(json.dumps(result)) == result
    for case in result["cases"]:
        assert set(case["seconds"]) == set(case["peak_bytes"]) == {"ours", "plain torch", "lightly"}
        assert min(case["seconds"].values()) > 0 and set(case["rounds"].values()) == {3} and not case["failures"]
        assert case["floor_seconds"] > 0


def test_every_scale_has_every_row():
    assert set(SIZES) == set(BUILDERS) and all({"tiny", "cpu", "gpu"} == set(sizes) for sizes in SIZES.values())


def test_unequal_results_are_not_raced(monkeypatch):
    monkeypatch.setattr(plain, "vicreg", lambda a, b: (a - b).square().sum())
    with pytest.raises(AssertionError, match="vicreg .*plain torch gives"):
        run("tiny", CPU, ["vicreg"], budget=0.0, rounds=1)


def test_plain_sigreg_is_the_same_statistic():
    """It draws its own directions, so the race cannot compare: many directions bring the means together."""
    (case,) = cases("tiny", CPU, ["sigreg"])
    z = case.leaves[0].detach()
    from sslcore.objectives import sigreg

    values = [sigreg(z, 20_000).item(), plain.sigreg(z, 20_000).item()]
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_lightly_reads_two_views_of_a_batch_from_workers():
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    first, second = lightly_loader(images, workers=1)()
    assert first.shape == second.shape == (4, 3, 32, 32) and not torch.equal(first, second)


def test_peak_memory_counts_what_is_held_at_once():
    size = 2**20

    def call():
        first = torch.ones(size)  # 4 MiB
        second = first + 1  # 8 MiB
        del first
        return second * 2  # 8 MiB again

    assert 8 * size <= peak_bytes(call, CPU) < 8.1 * size


def test_contenders_take_turns():
    order = []
    times = race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, budget=0.0, rounds=9)
    assert order == ["a", "b"] * 3 and {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_rows_name_the_best_peer_also_where_we_lose():
    assert row(a_case()) == ["nt_xent, N=2 D=2", "2 ms", "lightly 1 ms", "0.50x", "4.0x", "1 MiB", "plain torch 3 MiB"]
    assert row(a_case(ours=0.0005))[1:4] == ["500 µs", "lightly 1 ms", "2.0x"]
    alone = {**a_case(), "seconds": {"ours": 1.0}, "peak_bytes": {}}
    assert row(alone)[2:4] == ["-", "-"] and row(alone)[5:] == ["-", "-"]
    text = table(a_result())
    assert "cpu, 1 threads, 2026-01-02; torch 2.9." in text and "100 GB/s" in text and "50 GFLOP/s" in text
    assert text.endswith("Did not finish: nt_xent, N=2 D=2: torch.compile InductorError.")


def test_write_then_check_then_stale(tmp_path, capsys):
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    (results / "cpu.json").write_text(json.dumps(a_result()))
    readme.write_text(f"# Course\n{START}\nold\n{END}\nend\n")
    options = ["--results", str(results)]
    assert main([*options, "--check", str(readme)]) == 1 and "stale" in capsys.readouterr().out
    assert main([*options, "--write", str(readme)]) == 0 and main([*options, "--check", str(readme)]) == 0
    assert "No GPU run has been made yet" in readme.read_text() and readme.read_text().endswith("\nend\n")
    (results / "gpu.json").write_text(json.dumps(a_result(ours=0.0001)))
    assert main([*options, "--check", str(readme)]) == 1
    assert "No GPU run" not in block(results) and block(results).count("nt_xent, N=2 D=2 |") == 2


@pytest.mark.parametrize("text", ["nothing", START, f"{END} {START}", f"{START}{START}{END}"])
def test_markers_must_stand_once_in_order(text):
    with pytest.raises(ValueError, match="once each"):
        with_block(text, "table")


def test_committed_results_stay_above_the_floor():
    """A time below the floor would mean that the floor is counted wrongly."""
    for result in read_results(RESULTS).values():
        assert {case["name"] for case in result["cases"]} == set(BUILDERS)
        for case in result["cases"]:
            assert min(case["seconds"].values()) > case["floor_seconds"], case["name"]


def test_the_readme_shows_the_results_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_block(text, block()) == text, "run python -m tests.benchmarks --write README.md"
