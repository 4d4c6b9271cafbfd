"""A comparison's interval, verdict, refusals and evidence file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection

from sslcore.evidence import EvidenceError, evidence_path, find_evidence, load_evidence, merge_evidence
from sslcore.experiment import compare, decide, spread_ratio, t_interval


def arms(effects, noise=0.0):
    """Control around 0.5, treatment shifted by one effect a seed; both share the seed's noise."""

    def control(seed):
        return 0.5 + noise * float(torch.randn(()))

    return {"treatment": lambda seed: control(seed) + effects[seed], "control": control}


def run(effects, margin=0.05, **kw):
    return compare(
        arms(effects, kw.pop("noise", 0.1)), range(len(effects)), claim="treatment is better", treatment="treatment",
        control="control", margin=margin, metric="accuracy", slug="look", **kw,
    )


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_interval_equals_a_table_value_times_the_standard_error(values):
    table = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # t(n - 1, 0.975), any textbook
    mean, low, high = t_interval(values)
    half = table[len(values)] * np.std(values, ddof=1) / math.sqrt(len(values))
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert high - mean == pytest.approx(half, rel=1e-3, abs=1e-9)
    assert mean - low == pytest.approx(high - mean, abs=1e-9)


def test_interval_covers_the_truth_nineteen_times_in_twenty():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    covered = sum(low <= 0 <= high for _, low, high in map(t_interval, draws.tolist())) / len(draws)
    assert covered == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([0.20, 0.22, 0.18, 0.21], "holds"),
        ([-0.20, -0.22, -0.18, -0.21], "opposite"),
        ([0.20, -0.22, 0.18, -0.15], "inconclusive"),  # wide interval
        ([0.010, 0.011, 0.009, 0.010], "inconclusive"),  # sure, but below the margin
        ([-0.010, -0.011, -0.009, -0.010], "inconclusive"),
    ],
)
def test_verdict_needs_both_the_interval_and_the_margin(effects, verdict):
    assert run(effects).verdict == verdict


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=6), st.floats(0, 0.5))
def test_swapping_the_direction_mirrors_the_verdict(effects, margin):
    effect, low, high = t_interval(effects)
    mirrored = {"holds": "opposite", "opposite": "holds", "inconclusive": "inconclusive"}
    higher, lower = decide(effect, (low, high), margin), decide(effect, (low, high), margin, higher_is_better=False)
    assert lower == mirrored[higher]


def test_lower_is_better_holds_for_a_smaller_treatment():
    assert run([-0.20, -0.22, -0.18], higher_is_better=False).verdict == "holds"


def test_effects_are_paired_by_seed():
    """Noise shared by a pair cancels: an unpaired interval over noise of 10 would be hundreds of times wider."""
    result = run([0.20, 0.21, 0.19, 0.20], noise=10.0)
    assert result.effects == pytest.approx([0.20, 0.21, 0.19, 0.20], abs=1e-5)
    assert result.verdict == "holds"


def test_arms_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run([0.1, 0.2, 0.3])
    assert torch.equal(torch.rand(2), expected)


def test_secondary_metrics_and_images_are_kept():
    def arm(base):
        return lambda seed: {"knn": torch.tensor(base + seed / 100), "rank": 3 * base, "images_seen": 50}

    pair = {"a": arm(1.0), "b": arm(2.0), "c": arm(5.0)}
    result = compare(pair, (0, 1, 2), claim="b", treatment="b", control="a", margin=0, metric="knn", slug="look")
    assert result.secondary["b"] == {"rank": [6.0, 6.0, 6.0]}
    assert result.images_seen == 9 * 50
    assert result.values["c"] == pytest.approx([5.0, 5.01, 5.02])
    assert result.device and result.versions["torch"] == torch.__version__ and result.seconds >= 0


def test_arms_deaf_to_their_seed_are_reported():
    with pytest.warns(UserWarning, match="seed"):
        run([0.2, 0.2, 0.2], noise=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": (0, 1)}, "at least 3"),
        ({"seeds": (0, 1, 1)}, "different"),
        ({"treatment": "missing"}, "treatment"),
        ({"treatment": "control"}, "same arm"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"claim": " "}, "claim"),
        ({"scale": "huge"}, "scale"),
        ({"metric": "auroc", "arms": {"treatment": lambda s: {"knn": 1.0}, "control": lambda s: 0.0}}, "auroc"),
        ({"arms": {"treatment": lambda s: float("nan"), "control": lambda s: 0.0}}, "treatment.*seed 0.*nan"),
        ({"arms": {"treatment": lambda s: 1.0, "control": lambda s: float("inf")}}, "control.*inf"),
    ],
)
def test_refuses_what_cannot_be_evidence(change, message):
    settings = {
        "arms": arms([0.1] * 3), "seeds": (0, 1, 2), "claim": "c", "treatment": "treatment", "control": "control",
        "margin": 0.0,
    }
    with pytest.raises(ValueError, match=message):
        compare(**{**settings, **change})


def test_an_arm_must_return_numbers():
    with pytest.raises(TypeError, match="number"):
        run_arms = {"treatment": lambda s: "good", "control": lambda s: 0.0}
        compare(run_arms, (0, 1, 2), claim="c", treatment="treatment", control="control", margin=0)


def test_tables_name_arms_effect_and_verdict():
    result = run([0.20, 0.22, 0.18])
    for table in (result.table(), result.table("markdown"), result._repr_markdown_(), repr(result)):
        assert all(word in table for word in ("treatment", "control", "holds", "+0.200", "treatment is better"))
    assert result.table("markdown").splitlines()[1].startswith("|---|")
    with pytest.raises(ValueError, match="html"):
        result.table("html")


def test_plot_has_one_dot_a_seed_and_arm():
    axes = run([0.20, 0.22, 0.18]).plot()
    dots = [len(drawn.get_offsets()) for drawn in axes.collections if isinstance(drawn, PathCollection)]
    assert dots == [3, 3]
    assert "holds" in axes.get_title()


def test_several_claims_share_a_file(tmp_path):
    run([0.20, 0.22, 0.18]).save(tmp_path)
    path = run([0.0, 0.1, -0.1], key="second").save(tmp_path)
    data = load_evidence(path)
    assert path == evidence_path(tmp_path, "look", "cpu") and list(data["claims"]) == ["main", "second"]
    assert data["claims"]["main"]["verdict"] == "holds" and data["claims"]["second"]["verdict"] == "inconclusive"
    assert [file.name for file in tmp_path.iterdir()] == ["look.cpu.json"]  # nothing is left aside


def test_saving_without_slug_is_refused(tmp_path):
    result = compare(arms([0.1] * 3, 0.1), (0, 1, 2), claim="c", treatment="treatment", control="control", margin=0)
    with pytest.raises(ValueError, match="slug"):
        result.save(tmp_path)


def test_readouts_are_merged(tmp_path):
    run([0.20, 0.22, 0.18]).save(tmp_path)
    path = merge_evidence(tmp_path, "look", "cpu", readouts={"binding": {"metric": "AUROC", "value": 0.7}})
    assert load_evidence(path)["readouts"]["binding"]["value"] == 0.7
    with pytest.raises(EvidenceError, match="binding"):
        merge_evidence(tmp_path, "look", "cpu", readouts={"binding": {"metric": "AUROC", "value": float("nan")}})
    assert load_evidence(path)["readouts"]["binding"]["value"] == 0.7


def test_numbers_are_merged_found_by_prose_and_finite(tmp_path):
    from sslcore.nb.prose import look_up

    path = merge_evidence(tmp_path, "look", "cpu", numbers={"board": {"mae_vit": {"binding": 0.7}}, "count": 8})
    merge_evidence(tmp_path, "look", "cpu", numbers={"count": 9})
    data = load_evidence(path)
    assert look_up(data, "numbers.board.mae_vit.binding") == 0.7 and look_up(data, "numbers.count") == 9
    for wrong in (float("nan"), "many", [1.0], None, True):
        with pytest.raises(EvidenceError, match=r"numbers\.board\.a"):
            merge_evidence(tmp_path, "look", "cpu", numbers={"board": {"a": wrong}})
    assert load_evidence(path) == data


def damage(text, how):
    data = json.loads(text)
    claim = data["claims"]["main"]
    if how == "truncated":
        return text[: len(text) // 2]
    if how == "other slug":
        data["slug"] = "seer"
    elif how == "no effect":
        del claim["effect"]
    elif how == "invented verdict":
        claim["verdict"] = "proved"
    elif how == "values short":
        claim["values"]["control"].pop()
    elif how == "effect outside":
        claim["effect"] = 9.0
    elif how == "old schema":
        data["schema"] = 0
    elif how == "list":
        data = []
    return json.dumps(data)


DAMAGE = "truncated|other slug|no effect|invented verdict|values short|effect outside|old schema|list".split("|")


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_evidence_is_named(tmp_path, how):
    path = run([0.20, 0.22, 0.18]).save(tmp_path / "01_contrastive" / "evidence")
    path.write_text(damage(path.read_text(), how))
    with pytest.raises(EvidenceError, match="look.cpu.json"):
        find_evidence(tmp_path)
    with pytest.raises(EvidenceError, match="look.cpu.json"):  # and saving must not paper over it
        run([0.20, 0.22, 0.18], key="second").save(path.parent)


def test_spread_ratio_is_the_set_of_ratios_that_morgans_test_accepts():
    """Sum and difference of two equally spread variables do not correlate: the ends are where that test turns over."""
    from scipy.stats import pearsonr

    rng = np.random.default_rng(3)
    a = rng.normal(size=14)
    b = 0.6 * a + rng.normal(size=14)
    ratio, low, high = spread_ratio(a.tolist(), b.tolist())
    assert ratio == pytest.approx(a.std() / b.std())
    for end in (low, high):
        assert pearsonr(a + end * b, a - end * b).pvalue == pytest.approx(0.05, abs=1e-6)
    assert low < ratio < high


def test_spread_ratio_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(1500, 12))
    pairs = 2 * (shared + rng.normal(size=shared.shape)), shared + rng.normal(size=shared.shape)
    ends = [spread_ratio(a, b)[1:] for a, b in zip(*(x.tolist() for x in pairs), strict=True)]
    assert np.mean([low <= 2 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.02)
    alike = [spread_ratio(a, b)[1:] for a, b in zip(pairs[0].tolist(), (pairs[0] + 3).tolist(), strict=True)]
    np.testing.assert_allclose(alike[:5], 1.0)  # perfectly paired: nothing left to chance


def test_spread_ratio_of_groups_leaves_their_centres_out():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 1500, 4, 3))
    centres = 9 * rng.normal(size=(1500, 4, 1))
    ends = [spread_ratio(x.tolist(), y.tolist())[1:] for x, y in zip(a + centres, 3 * (b + centres), strict=True)]
    assert np.mean([low <= 1 / 3 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.02)
    flat, grouped = spread_ratio(a[0, 0].tolist(), b[0, 0].tolist()), spread_ratio(a[0, :1].tolist(), b[0, :1].tolist())
    assert flat == pytest.approx(grouped)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [([1, 2, 3], [1, 2], "3. and .2"), ([1, 2], [1, 3], "at least 3 seeds"), ([1, 1, 1], [1, 2, 3], "constant")],
)
def test_spread_ratio_refuses(a, b, said):
    with pytest.raises(ValueError, match=said):
        spread_ratio(a, b)
