"""EPIC distances of a sweep's reward models, measured once before training: its figures can show them beside success.

Random states of the task, drawn as the trials draw them, or a labelled data set, are scored by the pools that serve the trials.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.epic import Measures, measure
from vlm_rm_sweeps.evaluation.ground_truth import SUCCESS, Truth
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, PoolError, RewardPool
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, Trial
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateValue, StateVariable
from vlm_rm_sweeps.tasks.task import Task

_SEED = 0
_KEY = ("model", "alpha", "prompt", "textures", "camera")
LOGGED = ("epic_distance", "epic_low", "epic_high")
"""The columns that become metrics of each trial."""


def measure_sweep(sweep: Sweep, pools: Mapping[str, PoolConfig]) -> pd.DataFrame:
    """Return a row for each model, alpha, prompt and rendering of the sweep, with its measures on `epic_states`.

    The pools must run. Each image is encoded once by each model. Of random states the truth is the closeness to the goal where the
    task has a state variable with a goal, else its success test. Raises UserError if the truth or a reward is the same for all
    states, a reward is not finite, or a labelled data set cannot be used.
    """
    formats = {model_id: pools[model_id].frame_format for model_id in sweep.models}
    rows = []
    for rendering in sweep.renderings():
        frames, truth, groups = _states(sweep, rendering, set(formats.values()))
        for model_id in sweep.models:
            combinations = [(alpha, prompt) for model, alpha, prompt in sweep.combinations() if model == model_id]
            specs = [prompt.spec(alpha) for alpha, prompt in combinations]
            rewards = _scored(RewardPool.connect(pools[model_id]), frames[formats[model_id]], specs)
            names = [f"{model_id} at alpha {alpha:g} with prompt {prompt.id!r}" for alpha, prompt in combinations]
            for (alpha, prompt), measures in zip(combinations, measure(rewards, truth, names, groups=groups), strict=True):
                cell: tuple[str | float, ...] = (model_id, alpha, prompt.id, rendering.textures, rendering.camera)
                rows.append({**dict(zip(_KEY, cell, strict=True)), "truth": truth.name, **measures.to_dict()})
    return pd.DataFrame(rows)


def metrics_of(table: pd.DataFrame, trial: Trial) -> dict[str, float]:
    """Return a trial's row of the table that `measure_sweep` gives, as metrics; empty for one that learns from the true reward, or
    from a reward that is the same for all states."""
    key = (trial.model_id, trial.alpha, trial.prompt_id, trial.rendering.textures, trial.rendering.camera)
    found = table[(table[list(_KEY)] == pd.Series(key, index=_KEY)).all(axis=1)]
    values = {name: float(found[name].iloc[0]) for name in LOGGED} if len(found) else {}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def known_measures(file: Path) -> pd.DataFrame | None:
    """Return the table, as it was written to a CSV file; None if it is not there or damaged: then it can be measured again.

    A reward that is the same for all states has no distance: NaN there.
    """
    try:
        # A prompt's id may look like a number, or like what pandas takes for a missing value.
        table = pd.read_csv(
            file,
            dtype={name: str for name in _KEY if name != "alpha"},
            keep_default_na=False,
            na_values={name: [""] for name in Measures.__dataclass_fields__},
        )
        numeric = all(is_numeric_dtype(table[name]) for name in ("alpha", *LOGGED)) and bool(table["alpha"].notna().all())
        return table if numeric and file.read_bytes().endswith(b"\n") else None
    except (OSError, ValueError, KeyError):
        return None


Frames = dict[FrameFormat, list[np.ndarray]]
"""Frames uint8 (H, W, 3) of the same states in each format."""


def _states(sweep: Sweep, rendering: Rendering, formats: set[FrameFormat]) -> tuple[Frames, Truth, np.ndarray | None]:
    """Return the states of `epic_states`, the truth about them, and which of them depend on each other, as `measure` takes it."""
    if isinstance(sweep.epic_states, int):
        return *_random_states(sweep.the_task(), sweep.epic_states, rendering, formats), None
    dataset, truth = read_labelled(sweep.epic_states, sweep, "epic_states")
    images = (dataset.frame(index) for index in range(len(dataset)))
    return _resized(images, formats), truth, dataset.episodes


def _resized(images: Iterable[np.ndarray], formats: set[FrameFormat]) -> Frames:
    frames: Frames = {each: [] for each in formats}
    for image in images:
        # At once: full frames of all states would not fit into memory.
        for each, resized in frames.items():
            resized.append(resize_frames(image[None], each)[0])
    return frames


def _random_states(task: Task, count: int, rendering: Rendering, formats: set[FrameFormat]) -> tuple[Frames, Truth]:
    goal = next((variable for variable in task.require_states().variables if variable.goal is not None), None)
    successes, distances = [], []

    def drawn() -> Iterator[np.ndarray]:
        for state in sampled_states(task, count, _SEED, rendering):
            successes.append(float(bool(state.success)))
            distances.append(_distance(goal, state.variables))
            yield state.frame

    frames = _resized(drawn(), formats)
    if goal is not None and np.isfinite(distances).all():
        truth = Truth(f"closeness of {goal.name} to {goal.goal_text}", -np.array(distances))
    else:
        truth = Truth(SUCCESS, np.array(successes))
    if np.ptp(truth.values) == 0:
        raise UserError(
            f"epic_states = {count}: {truth.name} is the same for all of these states of {task.name}: ask for more states"
        )
    return frames, truth


def _distance(goal: StateVariable | None, variables: Mapping[str, StateValue]) -> float:
    """How far a state is from the goal; NaN if the simulator's state does not name the variable."""
    value = variables.get(goal.name) if goal else None
    return float(goal.distance_to_goal(np.array(value))) if goal and isinstance(value, float) else float("nan")


def _scored(pool: RewardPool, frames: list[np.ndarray], specs: list[RewardSpec]) -> np.ndarray:
    same_sizes = groupby(frames, key=lambda frame: frame.shape)
    try:
        return np.concatenate([pool.score(np.stack(list(same_size)), specs) for _, same_size in same_sizes])
    except PoolError as error:
        raise UserError(f"epic_states: {error}") from error
