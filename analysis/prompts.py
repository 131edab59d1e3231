"""Results of a screening: EPIC distance by prompt and alpha, a heat map for each model.

Run `python analysis/prompts.py results/screen_cartpole-...` on a folder that `vlm-rm sweep` wrote for a file with `screen:`.
Prompts are sorted by the smallest distance that any model reaches with them. Expect rows to differ more than columns: the
wording matters more than alpha.
"""

import matplotlib.pyplot as plt
from runs import DoesNotApplyError, SweepRuns, draw_alone, reward_told

from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, PARAMETERS_MILLIONS

_LONGEST_LABEL = 48


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    table = runs.trials()
    if not runs.is_screening:
        raise DoesNotApplyError("it is not a screening, which is what `vlm-rm sweep` makes of a file with `screen:`")
    table["alpha"] = table["alpha"].map(reward_told)
    goals = {child.data.tags["prompt"]: child.data.params["goal"] for child in runs.children}
    order = table.groupby("prompt")[EPIC_DISTANCE].min().sort_values().index
    labels = [
        goals[prompt] if len(goals[prompt]) <= _LONGEST_LABEL else goals[prompt][: _LONGEST_LABEL - 3] + "..."
        for prompt in order
    ]
    models = table.groupby("model", sort=False)[PARAMETERS_MILLIONS].first().sort_values().index
    figure, axes = plt.subplots(
        1,
        len(models),
        figsize=(3 + 2.6 * len(models), 1.2 + 0.24 * len(order)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    limits = table[EPIC_DISTANCE].min(), table[EPIC_DISTANCE].max()
    for axis, model in zip(axes[0], models, strict=True):
        grid = table[table["model"] == model].pivot(index="prompt", columns="alpha", values=EPIC_DISTANCE).loc[order]
        image = axis.imshow(grid, aspect="auto", cmap="viridis_r", vmin=limits[0], vmax=limits[1])
        shown = range(0, grid.shape[1], max(1, grid.shape[1] // 5))
        axis.set(title=model, xlabel="alpha", xticks=shown, xticklabels=[_shown(grid.columns[index]) for index in shown])
        axis.set_yticks(range(len(order)), labels, fontsize=8)
    figure.colorbar(image, ax=axes, label="EPIC distance (smaller is better)")
    columns = ["model", PARAMETERS_MILLIONS, "alpha", "prompt", EPIC_DISTANCE, EPIC_LOW, EPIC_HIGH, "spearman"]
    runs.save(figure, table[columns], "prompts")


def _shown(reward: float | str) -> str:
    return reward if isinstance(reward, str) else f"{reward:g}"


if __name__ == "__main__":
    draw_alone(draw)
