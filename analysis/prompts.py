"""What a screening found: EPIC distance of each prompt at each alpha, a heat map for each model.

Run: python analysis/prompts.py results/screen_cartpole-... (a folder that `vlm-rm sweep` made of a file with `screen:`). Prompts are
sorted by the smallest distance that any model reaches with them. Expect rows to differ more than columns: the wording matters
more than alpha.
"""

import matplotlib.pyplot as plt
from runs import DoesNotApplyError, SweepRuns, draw_alone

_LONGEST_LABEL = 48


def draw(runs: SweepRuns) -> None:
    table = runs.trials()
    if not runs.is_screening:
        raise DoesNotApplyError("it is no screening: prompts are compared where `vlm-rm sweep` ran a file with `screen:`")
    table["alpha"] = table["alpha"].astype(float)
    goals = {child.data.tags["prompt"]: child.data.params["goal"] for child in runs.children}
    order = table.groupby("prompt")["epic_distance"].min().sort_values().index
    labels = [
        goals[prompt] if len(goals[prompt]) <= _LONGEST_LABEL else goals[prompt][: _LONGEST_LABEL - 3] + "..."
        for prompt in order
    ]
    models = table.groupby("model", sort=False)["parameters_millions"].first().sort_values().index
    figure, axes = plt.subplots(
        1,
        len(models),
        figsize=(3 + 2.6 * len(models), 1.2 + 0.24 * len(order)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    limits = table["epic_distance"].min(), table["epic_distance"].max()
    for axis, model in zip(axes[0], models, strict=True):
        grid = table[table["model"] == model].pivot(index="prompt", columns="alpha", values="epic_distance").loc[order]
        image = axis.imshow(grid, aspect="auto", cmap="viridis_r", vmin=limits[0], vmax=limits[1])
        shown = range(0, grid.shape[1], max(1, grid.shape[1] // 5))
        axis.set(title=model, xlabel="alpha", xticks=shown, xticklabels=[f"{grid.columns[index]:g}" for index in shown])
        axis.set_yticks(range(len(order)), labels, fontsize=8)
    figure.colorbar(image, ax=axes, label="EPIC distance (smaller is better)")
    columns = ["model", "parameters_millions", "alpha", "prompt", "epic_distance", "epic_low", "epic_high", "spearman"]
    runs.save(figure, table[columns], "prompts")


if __name__ == "__main__":
    draw_alone(draw)
