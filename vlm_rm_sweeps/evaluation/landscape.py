"""Landscapes (paper, Figure 2): the reward as a function of one or two state variables, for models x alphas x prompts."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.score import score_frames
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateVariable, find_variable
from vlm_rm_sweeps.tasks.task import Task

_AXES_AT_MOST = 2
_STATES_AT_MOST = 10_000
"""1.5 GB of frames of 224 x 224 pixels."""
PICTURES, PICTURES_OF_TWO = 5, 3
"""Pictures along the axis of a landscape over one variable; along each of two."""


@dataclass(frozen=True)
class Axis:
    """One variable of a landscape and the values at which it is looked at."""

    variable: StateVariable
    values: np.ndarray


@dataclass(frozen=True)
class Walk:
    """The states of a landscape: `points` (N, axes), the last axis fastest.

    `frames`: for each format that a model wants, the states as it sees them, uint8 (N, H, W, 3). `pictures`: a few of them by number,
    for people, as large as the environment draws them; those of all states would not fit into memory.
    """

    task: Task
    axes: tuple[Axis, ...]
    points: np.ndarray
    frames: Mapping[FrameFormat, np.ndarray]
    pictures: Mapping[int, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def goal_units(self) -> str:
        """Units of the distance from the goal."""
        return ", ".join(axis.variable.unit for axis in self.axes if axis.variable.goal is not None)


@dataclass(frozen=True)
class Shape:
    """How well one landscape leads to the goal, along the variables that have one.

    `peak`: where the reward is largest; `peak_distance`: how far that is from the goal, 0 inside it; `spearman`: rank correlation
    of the reward with closeness to the goal. Both NaN if no variable of the landscape has a goal.
    """

    peak: tuple[float, ...]
    peak_distance: float
    spearman: float


def make_axis(task: Task, text: str, points: int) -> Axis:
    """Return an axis out of `theta`, over the variable's whole range, or `theta=-0.25:0.25`. UserError if it is neither."""
    name, _, interval = text.partition("=")
    variable = find_variable(task.require_states(), name.strip())
    low, high = variable.low, variable.high
    if interval:
        try:
            low, high = (float(end) for end in interval.split(":"))
        except ValueError as error:
            raise UserError(f"variable {text!r}: expected a name, or a name and a range such as '{name}=-0.25:0.25'") from error
    if not variable.low <= low < high <= variable.high:
        raise UserError(
            f"variable {text!r}: expected a range inside {variable.low:.4g}:{variable.high:.4g} {variable.unit}, low end first"
        )
    return Axis(variable, np.linspace(low, high, points))


def walk(task: Task, axes: Sequence[Axis], formats: Collection[FrameFormat], rendering: Rendering | None = None) -> Walk:
    """Render the task's states along one axis, or over the grid of two, as models with these formats see them.

    UserError if they are too many, or the axes not one or two different variables.
    """
    names = [axis.variable.name for axis in axes]
    if not 1 <= len(axes) <= _AXES_AT_MOST or len(set(names)) != len(names):
        raise UserError(
            f"variables {', '.join(names) or 'none'}: a landscape is drawn over one variable, or over two different ones"
        )
    count = math.prod(len(axis.values) for axis in axes)
    if count > _STATES_AT_MOST:
        raise UserError(
            f"a landscape of {count:,} states: expected at most {_STATES_AT_MOST:,}; look at fewer points of each variable"
        )
    space = task.require_states()
    points = np.stack([grid.ravel() for grid in np.meshgrid(*(axis.values for axis in axes), indexing="ij")], axis=1)
    shown = set(pictured(axes))
    frames: dict[FrameFormat, list[np.ndarray]] = {each: [] for each in formats}
    pictures = {}
    env = task.make_native_env(rendering or task.rendering(), None)
    try:
        env.reset(seed=0)
        for index, point in enumerate(points):
            space.place(env, dict(zip(names, map(float, point), strict=True)))
            drawn = np.asarray(env.render())
            for each, resized in frames.items():
                resized.append(resize_frames(drawn[None], each)[0])
            if index in shown:
                pictures[index] = drawn
    finally:
        env.close()
    return Walk(task, tuple(axes), points, {each: np.stack(resized) for each, resized in frames.items()}, pictures)


def pictured(axes: Sequence[Axis]) -> list[int]:
    """Return the numbers of the states that figures show: at even distances along each axis, none at its ends, the last axis fastest."""
    each = PICTURES if len(axes) == 1 else PICTURES_OF_TWO
    places = [np.linspace(0, len(axis.values) - 1, 2 * each + 1)[1::2].round().astype(int) for axis in axes]
    grid = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), [len(axis.values) for axis in axes])
    return [int(index) for index in grid.ravel()]


def landscape(walked: Walk, model: RewardModel, specs: Mapping[tuple[float, str], RewardSpec]) -> pd.DataFrame:
    """Rewards of one model along a walk, for specs by alpha and prompt id; each frame is encoded once for all of them. The
    walk must have frames in the model's format.

    A row for each spec and point: `model`, `alpha`, `prompt`, the variables, `reward`, and `rescaled`, the reward of that spec
    rescaled to [0, 1] over the walk, as in the paper's figure (0 throughout if the reward is constant).
    """
    rewards = score_frames(model, walked.frames[model.frame_format], list(specs.values())).astype(np.float64)
    spread = np.ptp(rewards, axis=0)
    rescaled = (rewards - rewards.min(axis=0)) / np.where(spread > 0, spread, 1)
    names = [axis.variable.name for axis in walked.axes]
    parts = [
        pd.DataFrame(
            {"model": model.model_id, "alpha": alpha, "prompt": prompt}
            | dict(zip(names, walked.points.T, strict=True))
            | {"reward": rewards[:, column], "rescaled": rescaled[:, column]}
        )
        for column, (alpha, prompt) in enumerate(specs)
    ]
    return pd.concat(parts, ignore_index=True)


def shape_of(walked: Walk, rewards: np.ndarray) -> Shape:
    """How well rewards (N,), in the order of the walk's points, lead to the goal."""
    peak = walked.points[int(np.argmax(rewards))]
    apart = [
        axis.variable.distance_to_goal(walked.points[:, column])
        for column, axis in enumerate(walked.axes)
        if axis.variable.goal is not None
    ]
    if not apart:
        return Shape(tuple(map(float, peak)), float("nan"), float("nan"))
    distances = np.linalg.norm(apart, axis=0)
    varies = np.ptp(rewards) > 0 and np.ptp(distances) > 0
    correlation = spearmanr(rewards, -distances).statistic if varies else float("nan")
    return Shape(tuple(map(float, peak)), float(distances[int(np.argmax(rewards))]), float(correlation))


def shapes(walked: Walk, table: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, alpha and prompt of landscapes: `peak_<variable>`, `peak_distance`, `spearman`."""
    rows = []
    for (model_id, alpha, prompt), part in table.groupby(["model", "alpha", "prompt"], sort=False):
        shape = shape_of(walked, part["reward"].to_numpy())
        peaks = {f"peak_{axis.variable.name}": value for axis, value in zip(walked.axes, shape.peak, strict=True)}
        rows.append(
            {"model": model_id, "alpha": alpha, "prompt": prompt}
            | peaks
            | {"peak_distance": shape.peak_distance, "spearman": shape.spearman}
        )
    return pd.DataFrame(rows)
