"""How a Comparison looks: a table in text or markdown, and a plot with one dot a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslcore.validate import unknown

if TYPE_CHECKING:
    from sslcore.experiment import Comparison


def _rows(result: Comparison) -> list[list[str]]:
    from sslcore.experiment import t_interval

    extra = list(dict.fromkeys(name for metrics in result.secondary.values() for name in metrics))
    rows = [["arm", f"{result.metric}, mean [95 % interval]", "each seed", *extra]]
    for arm, values in result.values.items():
        mean, low, high = t_interval(values)
        role = {result.treatment: " (treatment)", result.control: " (control)"}.get(arm, "")
        means = []
        for name in extra:
            other = result.secondary[arm].get(name)
            means.append(f"{sum(other) / len(other):.3g}" if other else "-")
        rows.append([arm + role, f"{mean:.3f} [{low:.3f}, {high:.3f}]", " ".join(f"{v:.3f}" for v in values), *means])
    return rows


def comparison_table(result: Comparison, style: str = "text") -> str:
    """The arms as rows, then one line each for claim, effect and verdict. style: "text" | "markdown"."""
    if style not in ("text", "markdown"):
        unknown("table style", style, ("text", "markdown"))
    rows = _rows(result)
    low, high = result.interval
    better = "higher" if result.higher_is_better else "lower"
    effect = (f"effect {result.effect:+.3f} [{low:+.3f}, {high:+.3f}] over {len(result.seeds)} seeds "
              f"({better} is better, margin {result.margin:g})")
    if style == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + "---|" * len(rows[0]))
        return "\n".join([*lines, "", f"Claim: {result.claim}  ", f"{effect}  ", f"Verdict: **{result.verdict}**"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"claim    {result.claim}", effect.replace("effect ", "effect   ", 1),
                      f"verdict  {result.verdict}"])


def comparison_plot(result: Comparison, ax=None):
    """Dots: seeds (thin lines join a seed's treatment and control). Bars: 95 % interval of each arm's mean."""
    import matplotlib.pyplot as plt

    from sslcore.experiment import t_interval

    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 1.1 * len(result.values), 2.8))
    names = list(result.values)
    place = {name: position for position, name in enumerate(names)}
    count = len(result.seeds)
    shift = [0.16 * (i / (count - 1) - 0.5) for i in range(count)]
    for i in range(count):
        pair = [place[result.control], place[result.treatment]]
        ends = [result.values[result.control][i], result.values[result.treatment][i]]
        ax.plot([x + shift[i] for x in pair], ends, color="0.6", linewidth=0.7, zorder=1)
    for name in names:
        mean, low, high = t_interval(result.values[name])
        color = f"C{place[name]}"
        ax.scatter([place[name] + s for s in shift], result.values[name], s=16, color=color, zorder=3)
        ax.errorbar(place[name] + 0.22, mean, [[mean - low], [high - mean]], fmt="_", capsize=4, color=color, zorder=2)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylabel(result.metric)
    ax.set_title(f"{result.verdict}: {result.effect:+.3f} [{result.interval[0]:+.3f}, {result.interval[1]:+.3f}]")
    return ax
