"""Figures of landscapes: curves over one variable with pictures of the states, or heat maps over two variables."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.landscape import LABEL, PICTURES, Axis, Walk, pictured, shapes
from vlm_rm_sweeps.files import new_output

_PANEL_WIDTH = 4.6
_COLOURS = "viridis"
"""Lightness rises with alpha, which also works in print and for colour-blind readers; the pale end is not used."""
_DARKEST, _LIGHTEST = 0.0, 0.85
_STYLES = ("-", "--", ":", "-.")


def save_landscape(folder: Path, walked: Walk, table: pd.DataFrame) -> pd.DataFrame:
    """Write the figure and tables of landscapes into a new folder: `landscape.png`, `.svg`, `.csv` and `shapes.csv`.

    Args:
        folder: Must not exist yet. It appears when it is complete.
        walked: The states.
        table: As `landscape` returns it, for one or more models.

    Returns:
        The table of `shapes`.

    Raises:
        UserError: The folder exists or cannot be created.
    """
    found, figure = shapes(walked, table), draw_landscape(walked, table)
    if folder.exists():
        raise UserError(f"{folder} exists already and is not overwritten: choose another folder")
    with new_output(folder) as unfinished:
        unfinished.mkdir()
        table.to_csv(unfinished / "landscape.csv", index=False)
        found.to_csv(unfinished / "shapes.csv", index=False)
        for suffix in ("png", "svg"):
            figure.savefig(unfinished / f"landscape.{suffix}", dpi=150)
    plt.close(figure)
    return found


def draw_landscape(walked: Walk, table: pd.DataFrame) -> Figure:
    """Draw landscapes side by side, a column of panels for each model.

    Args:
        walked: The states, over one or two variables.
        table: As `landscape` returns it, for one or more models.

    Returns:
        Curves with pictures over one variable, heat maps over two.
    """
    return _curves(walked, table) if len(walked.axes) == 1 else _heat_maps(walked, table)


def _curves(walked: Walk, table: pd.DataFrame) -> Figure:
    (axis,) = walked.axes
    named = _rewards_column(table)
    models, rewards, prompts = (list(table[key].unique()) for key in ("model", named, "prompt"))
    figure = plt.figure(figsize=(_PANEL_WIDTH * len(models) + 1.4, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, len(models) * PICTURES, height_ratios=[1, 4.2])
    shades = np.linspace(_DARKEST, _LIGHTEST, len(rewards)) if len(rewards) > 1 else [_DARKEST]
    colours = dict(zip(rewards, plt.get_cmap(_COLOURS)(shades), strict=True))
    first: Axes | None = None
    for column, model_id in enumerate(models):
        across = slice(column * PICTURES, (column + 1) * PICTURES)
        panel = figure.add_subplot(grid[1, across], sharey=first)
        first = first or panel
        for (reward, prompt), line in table[table["model"] == model_id].groupby([named, "prompt"], sort=False):
            panel.plot(
                line[axis.variable.name],
                line["rescaled"],
                color=colours[reward],
                linestyle=_STYLES[prompts.index(prompt) % len(_STYLES)],
                linewidth=1.8,
                label=_reward_name(reward) + (f", {prompt}" if len(prompts) > 1 else ""),
            )
        _mark_goal(panel, axis)
        panel.set(title=model_id, xlabel=axis.variable.axis_label, xlim=(axis.values[0], axis.values[-1]))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if column:
            panel.tick_params(labelleft=False)
        else:
            panel.set_ylabel("reward, each curve rescaled to [0, 1]")
        _pictures(figure, grid, column * PICTURES, walked, axis)
    assert first is not None
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def _rewards_column(table: pd.DataFrame) -> str:
    return LABEL if LABEL in table else "alpha"


def _reward_name(reward: float | str) -> str:
    return reward if isinstance(reward, str) else f"alpha {reward:g}"


def _pictures(figure: Figure, grid: GridSpec, column: int, walked: Walk, axis: Axis) -> None:
    """Draw evenly spaced states above the curve, none of them at the ends, where a picture would stick out."""
    for picture, index in enumerate(pictured(walked.axes)):
        _picture(figure.add_subplot(grid[0, column + picture]), walked, index, f"{axis.values[index]:.2g}")


def _picture(panel: Axes, walked: Walk, index: int, title: str) -> None:
    panel.imshow(walked.pictures[index])
    panel.set(xticks=[], yticks=[])
    panel.set_title(title, fontsize=8, pad=2)
    for spine in panel.spines.values():
        spine.set(color="0.7", linewidth=0.6)


def _mark_goal(panel: Axes, axis: Axis) -> None:
    goal = _goal_in_view(axis)
    if goal:
        for end in goal:
            panel.axvline(end, color="0.35", linestyle=(0, (4, 3)), linewidth=1, zorder=0)
        panel.axvspan(goal[0], goal[-1], color="0.92", linewidth=0, zorder=0)
        panel.annotate(
            "goal", (goal[0], 1.02), (3, 0), textcoords="offset points", fontsize=8, color="0.35", annotation_clip=False
        )
    panel.set_ylim(-0.03, 1.08)


def _goal_in_view(axis: Axis) -> list[float]:
    """Clip the goal's interval to an axis: its two ends, one value if they coincide, nothing if the goal lies outside."""
    if axis.variable.goal is None:
        return []
    low, high = max(axis.values[0], axis.variable.goal[0]), min(axis.values[-1], axis.variable.goal[1])
    return sorted({low, high}) if low <= high else []


def _heat_maps(walked: Walk, table: pd.DataFrame) -> Figure:
    """Draw a row for each alpha (and prompt) and a column for each model, the first variable along x."""
    across, upwards = walked.axes
    models = list(table["model"].unique())
    named = _rewards_column(table)
    specs = list(table[[named, "prompt"]].drop_duplicates().itertuples(index=False, name=None))
    size = (_PANEL_WIDTH + 3.4 * len(models) + 1.6, max(3.6, 2.5 * len(specs) + 0.6))
    figure = plt.figure(figsize=size, layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=[_PANEL_WIDTH, size[0] - _PANEL_WIDTH])
    states, maps = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    _grid_of_pictures(states, walked)
    panels = maps.subplots(len(specs), len(models), squeeze=False, sharex=True, sharey=True)
    several_prompts = table["prompt"].nunique() > 1
    for row, (reward, prompt) in enumerate(specs):
        for column, model_id in enumerate(models):
            panel = panels[row, column]
            part = table[(table["model"] == model_id) & (table[named] == reward) & (table["prompt"] == prompt)]
            mesh = panel.pcolormesh(
                across.values, upwards.values, part["rescaled"].to_numpy().reshape(walked.shape).T, cmap=_COLOURS, vmin=0, vmax=1,
                shading="nearest", rasterized=True,
            )  # fmt: skip
            _mark_goal_region(panel, walked)
            title = _reward_name(reward) + (f", {prompt}" if several_prompts else "")
            panel.set_title(f"{model_id}, {title}", fontsize=9)
            if row == len(specs) - 1:
                panel.set_xlabel(across.variable.axis_label)
            if column == 0:
                panel.set_ylabel(upwards.variable.axis_label)
    maps.colorbar(
        mesh, ax=panels, label="reward, each panel rescaled to [0, 1]", shrink=min(1.0, 2 / math.sqrt(len(specs))), aspect=30
    )
    return figure


def _grid_of_pictures(figure: SubFigure, walked: Walk) -> None:
    """Draw evenly spaced states in a grid, arranged as in the heat maps: the first variable along x, the second along y."""
    numbers = pictured(walked.axes)
    side = math.isqrt(len(numbers))
    panels = figure.subplots(side, side, squeeze=False)
    for place, index in enumerate(numbers):
        column, row = divmod(place, side)
        values = ", ".join(
            f"{axis.variable.name} {value:.2g}" for axis, value in zip(walked.axes, walked.points[index], strict=True)
        )
        _picture(panels[side - 1 - row, column], walked, index, values)


def _mark_goal_region(panel: Axes, walked: Walk) -> None:
    for axis, line in zip(walked.axes, (panel.axvline, panel.axhline), strict=True):
        for end in _goal_in_view(axis):
            line(end, color="white", linestyle=(0, (4, 3)), linewidth=1.2)
