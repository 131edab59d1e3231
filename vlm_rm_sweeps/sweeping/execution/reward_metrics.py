"""Measures of a sweep's rewards, taken once before training, for figures that compare them with success.

The pools that serve the trials score random states of the task, in the trials' renderings, or a labelled data set.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import Specs, measure_rewards
from vlm_rm_sweeps.evaluation.drawing import StateDrawer, drawn_states
from vlm_rm_sweeps.evaluation.ground_truth import SUCCESS, Truth
from vlm_rm_sweeps.evaluation.measures import MEASURED, Measures
from vlm_rm_sweeps.evaluation.score import score_frames
from vlm_rm_sweeps.evaluation.trajectories import Trajectories
from vlm_rm_sweeps.files import read_whole
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, REWARD
from vlm_rm_sweeps.serving.pool import PoolConfig, PoolError, RewardPool
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateValue, StateVariable
from vlm_rm_sweeps.tasks.task import Task

_SEED = 0
_COLUMNS = ("model", "alpha", REWARD, "prompt", "textures", "camera")
"""Columns that tell the rows apart, those that there are."""
_ALWAYS = (EPIC_DISTANCE, EPIC_LOW, EPIC_HIGH)
"""Columns of every table; those of earlier versions lack the other measures."""


def measure_sweep(plan: Plan, pools: Mapping[str, PoolConfig]) -> pd.DataFrame:
    """Measure every reward of a sweep on its `epic_states`.

    Each model encodes each image once. The truth of random states is the closeness to the goal if the task has a state variable
    with a goal, else its success test.

    Args:
        plan: The sweep.
        pools: The pool of each model, by model id. They must be running.

    Returns:
        A row for each model, reward, prompt and rendering, with the measures of `measures.Measures`.

    Raises:
        UserError: The truth or a reward is the same for all states, a reward is not finite, or a labelled data set cannot be
            used.
    """
    parts = []
    for rendering in plan.renderings:
        frames, truth, groups, trajectories = _states(
            plan, rendering, {pools[model_id].frame_format for model_id in plan.trained_models}
        )
        for model_id in plan.trained_models:
            specs = plan.specs_of(model_id)
            pool = RewardPool.connect(pools[model_id])
            rewards = _scored(pool, frames[pool.frame_format], specs)
            # The file's name of the model, which may leave out its version, is what trials are told by.
            table = measure_rewards(pool, specs, rewards, truth, groups, trajectories).assign(model=model_id)
            drawn = {"textures": rendering.textures, "camera": rendering.camera, "truth": truth.name}
            key = [name for name in _COLUMNS if name in (*table, *drawn)]
            parts.append(table.assign(**drawn)[[*key, "truth", *Measures.__dataclass_fields__]])
    return pd.concat(parts, ignore_index=True)


def metrics_of(table: pd.DataFrame, trial: Trial) -> dict[str, float]:
    """Look up a trial's row of a table of `measure_sweep`.

    Args:
        table: The table.
        trial: A trial of the same sweep.

    Returns:
        The measures and their intervals, as metrics, without those that are undefined; none for a reference, and for a reward
        that is the same for all states.
    """
    named = REWARD if REWARD in table else "alpha"
    key = pd.Series(
        {
            "model": trial.model_id,
            named: trial.reward_key,
            "prompt": trial.prompt_id,
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
        }
    )
    found = table[(table[list(key.index)] == key).all(axis=1)]
    values = {name: float(found[name].iloc[0]) for name in MEASURED if name in found} if len(found) else {}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def known_measures(file: Path) -> pd.DataFrame | None:
    """Read a table of `measure_sweep` from a CSV file.

    Args:
        file: The file, which need not exist.

    Returns:
        The table, with NaN as the distance of a reward that is the same for all states; None if the file is missing or damaged,
        so that it has to be measured again.
    """
    try:
        # A prompt's id may look like a number, or like a missing value to pandas.
        content = read_whole(file, "measure again")
        table = pd.read_csv(
            io.BytesIO(content),
            dtype={name: str for name in _COLUMNS if name != "alpha"},
            keep_default_na=False,
            na_values={name: [""] for name in ("alpha", *MEASURED)},
        )
        numbers = {"alpha", *_ALWAYS} | set(MEASURED).intersection(table)
        numeric = all(is_numeric_dtype(table[name]) for name in numbers)
        named = REWARD if REWARD in table else "alpha"
        keyed = not table[["model", named, "prompt", "textures", "camera"]].isna().any(axis=None)
        return table if numeric and keyed and content.endswith(b"\n") else None
    except (ValueError, KeyError):  # the first includes a file that is missing or cannot be read
        return None


Frames = dict[FrameFormat, list[np.ndarray]]
"""Frames uint8 (H, W, 3) of the same states in each format."""


def _states(
    plan: Plan, rendering: Rendering, formats: set[FrameFormat]
) -> tuple[Frames, Truth, np.ndarray | None, Trajectories | None]:
    """Return the frames of `epic_states`, the truth, groups of dependent states and their episodes, as `measure` takes them."""
    states = plan.sweep.epic_states
    if isinstance(states, int):
        return *_random_states(plan.task, states, rendering, formats), None, None
    dataset, truth = read_labelled(states, plan, "epic_states")
    return _by_format(drawn_states(dataset, formats)), truth, dataset.episodes, dataset.trajectories


def _by_format(drawn: Iterable[Mapping[FrameFormat, np.ndarray]]) -> Frames:
    frames: Frames = {}
    for of_state in drawn:
        for each, frame in of_state.items():
            frames.setdefault(each, []).append(frame)
    return frames


def _random_states(task: Task, count: int, rendering: Rendering, formats: set[FrameFormat]) -> tuple[Frames, Truth]:
    goal = next((variable for variable in task.require_states().variables if variable.goal is not None), None)
    successes, distances = [], []

    def drawn(drawer: StateDrawer) -> Iterator[dict[FrameFormat, np.ndarray]]:
        for state in sampled_states(task, count, _SEED, rendering):
            successes.append(float(bool(state.success)))
            distances.append(_distance(goal, state.variables))
            yield drawer.draw(state.frame, state.variables)

    with StateDrawer(task, rendering, formats) as drawer:
        frames = _by_format(drawn(drawer))
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
    """Compute how far a state is from the goal; NaN if the simulator's state lacks the variable."""
    value = variables.get(goal.name) if goal else None
    return float(goal.distance_to_goal(np.array(value))) if goal and isinstance(value, float) else float("nan")


def _scored(pool: RewardPool, frames: list[np.ndarray], specs: Specs) -> np.ndarray:
    try:
        return score_frames(pool, frames, list(specs.values()))
    except PoolError as error:
        raise UserError(f"epic_states: {error}") from error
