"""Landscapes (paper, Figure 2): the reward as a function of one or two state variables, by model, alpha and prompt."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import Specs, reward_columns
from vlm_rm_sweeps.evaluation.drawing import StateDrawer
from vlm_rm_sweeps.evaluation.score import score_frames
from vlm_rm_sweeps.evaluation.thresholds import with_values
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import REWARD
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateVariable, find_variable
from vlm_rm_sweeps.tasks.task import Task

_AXES_AT_MOST = 2
_STATES_AT_MOST = 10_000
"""At 224 x 224 pixels, the frames of this many states take 1.5 GB."""
LABEL = "reward_label"
"""Column of a landscape: the label of a reward, where `reward` is its value."""
PICTURES, PICTURES_OF_TWO = 5, 3
"""Number of pictures along the axis of a landscape over one variable, and along each axis over two."""


@dataclass(frozen=True)
class Axis:
    """One axis of a landscape.

    Attributes:
        variable: The state variable.
        values: Where it is evaluated, float (points,), rising, in the variable's unit.
    """

    variable: StateVariable
    values: np.ndarray


@dataclass(frozen=True)
class Walk:
    """The rendered states of a landscape.

    Attributes:
        task: Their task.
        axes: One or two.
        points: Values of the variables, float (N, number of axes); the last axis varies fastest.
        frames: By the models' frame formats, all states at that size, uint8 (N, H, W, 3).
        pictures: By index of the state, a few states at the environment's own size, uint8 (H, W, 3), for figures; those of all
            states would not fit into memory.
    """

    task: Task
    axes: tuple[Axis, ...]
    points: np.ndarray
    frames: Mapping[FrameFormat, np.ndarray]
    pictures: Mapping[int, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def goal_units(self) -> str:
        """Units of the distance from the goal."""
        return ", ".join(axis.variable.unit for axis in self.axes if axis.variable.goal is not None)


@dataclass(frozen=True)
class Shape:
    """How well one landscape leads to the goal, measured along the variables that have a goal.

    Attributes:
        peak: Values of the variables where the reward is largest.
        peak_distance: Distance of the peak from the goal, 0 inside it; NaN if no variable has a goal.
        spearman: Rank correlation of the reward with closeness to the goal; NaN if no variable has a goal, or if the reward or
            the distance is constant.
    """

    peak: tuple[float, ...]
    peak_distance: float
    spearman: float


def make_axis(task: Task, text: str, points: int) -> Axis:
    """Parse an axis.

    Args:
        task: A task with a state space.
        text: Name of a state variable, for its whole range, or name and range, such as `theta=-0.25:0.25`.
        points: Number of values, evenly spaced over the range, both ends included.

    Returns:
        The axis.

    Raises:
        UserError: The task has no state space, the variable does not exist, or the range is malformed or exceeds the
            variable's.
    """
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
    """Render a task's states along one axis, or over the grid of two.

    Args:
        task: A task with a state space.
        axes: One or two different variables.
        formats: Frame formats of the models that will score the states.
        rendering: How states are rendered; by default the task's first textures and camera.

    Returns:
        The states with frames in each of the formats.

    Raises:
        UserError: There are more than 10 000 states, or the axes are not one or two different variables.
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
    drawn = rendering or task.rendering()
    with closing(task.make_native_env(drawn, None)) as env, StateDrawer(task, drawn, formats) as drawer:
        env.reset(seed=0)
        for index, point in enumerate(points):
            space.place(env, dict(zip(names, map(float, point), strict=True)))
            picture = np.asarray(env.render())
            for each, frame in drawer.draw(picture, space.read(env)).items():
                frames[each].append(frame)
            if index in shown:
                pictures[index] = picture
    return Walk(task, tuple(axes), points, {each: np.stack(of_format) for each, of_format in frames.items()}, pictures)


def pictured(axes: Sequence[Axis]) -> list[int]:
    """Select the states that figures show: evenly spaced along each axis, none at its ends.

    Args:
        axes: One or two.

    Returns:
        Indices of the states: 5 along one axis, or 3 x 3 over two, the last axis varying fastest.
    """
    each = PICTURES if len(axes) == 1 else PICTURES_OF_TWO
    places = [np.linspace(0, len(axis.values) - 1, 2 * each + 1)[1::2].round().astype(int) for axis in axes]
    grid = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), [len(axis.values) for axis in axes])
    return [int(index) for index in grid.ravel()]


def landscape(walked: Walk, model: RewardModel, specs: Specs, say: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Score the states of a landscape. Each frame is encoded once for all specs.

    Args:
        walked: States with frames in the model's format.
        model: A loaded model.
        specs: Reward specs by alpha, or the label of another reward, and prompt id.
        say: Is told what the model remarks on these states, see `score_frames`.

    Returns:
        A row for each spec and state: `model`, `alpha` (and `reward_label`), `prompt`, the variables, `reward`, and `rescaled`,
        the reward of that spec rescaled to [0, 1] over all states, as in the paper's figure (0 throughout if the reward is constant).
    """
    told = [{LABEL if name == REWARD else name: value for name, value in each.items()} for each in reward_columns(specs)]
    measured = with_values(model, specs)
    rewards = score_frames(model, walked.frames[model.frame_format], list(measured.values()), say).astype(np.float64)
    spread = np.ptp(rewards, axis=0)
    rescaled = (rewards - rewards.min(axis=0)) / np.where(spread > 0, spread, 1)
    names = [axis.variable.name for axis in walked.axes]
    parts = [
        pd.DataFrame(
            {"model": model.model_id, **reward, "prompt": prompt}
            | dict(zip(names, walked.points.T, strict=True))
            | {"reward": rewards[:, column], "rescaled": rescaled[:, column]}
        )
        for column, ((_, prompt), reward) in enumerate(zip(specs, told, strict=True))
    ]
    return pd.concat(parts, ignore_index=True)


def shape_of(walked: Walk, rewards: np.ndarray) -> Shape:
    """Measure how well the rewards of one spec lead to the goal.

    Args:
        walked: N states.
        rewards: float (N,), in the order of `walked.points`.

    Returns:
        Peak, its distance from the goal, and rank correlation.
    """
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
    """Make the table of the landscapes' shapes.

    Args:
        walked: The states.
        table: As `landscape` returns it, for one or more models.

    Returns:
        A row for each model, alpha and prompt: `peak_<variable>` for each variable, `peak_distance` and `spearman`.
    """
    rows = []
    named = [name for name in ("model", "alpha", LABEL, "prompt") if name in table]
    for key, part in table.groupby(named, sort=False, dropna=False):
        shape = shape_of(walked, part["reward"].to_numpy())
        peaks = {f"peak_{axis.variable.name}": value for axis, value in zip(walked.axes, shape.peak, strict=True)}
        rows.append(
            dict(zip([REWARD if name == LABEL else name for name in named], key, strict=True))
            | peaks
            | {"peak_distance": shape.peak_distance, "spearman": shape.spearman}
        )
    return pd.DataFrame(rows)
