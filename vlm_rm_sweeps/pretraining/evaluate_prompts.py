"""What a model understands beyond the paper's prompts: paraphrases, opposites, and single attributes of a posture.

Each prompt is judged as a reward: by its rank correlation with the truth (CartPole, MountainCar), or by the area under the ROC curve of
the states that pass the task's success test (humanoid). An attribute is judged by a walk along it, with all else fixed.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from vlm_rm_sweeps.pretraining import humanoid
from vlm_rm_sweeps.pretraining.held_out import HeldOut
from vlm_rm_sweeps.pretraining.held_out_prompts import HeldOutPrompts
from vlm_rm_sweeps.pretraining.humanoid import HumanoidState
from vlm_rm_sweeps.rewards.open_clip_models import words_of
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, Pose, interpolated
from vlm_rm_sweeps.tasks.registry import find_task


def measure_prompts(
    model: RewardModel,
    sets: Collection[HeldOut],
    prompts: Mapping[str, HeldOutPrompts],
    known_words: frozenset[str],
) -> pd.DataFrame:
    """Measure how well the reward of each prompt agrees with its task's truth.

    Args:
        model: A loaded model.
        sets: Held-out sets that hold the truths of all tasks in `prompts`.
        prompts: By task.
        known_words: Words of the training captions.

    Returns:
        A row for each prompt: `task`, `group` (`paper`, `known words`, `unknown words`, `opposites`), `prompt`, and `agreement`:
        Spearman's correlation, or the area under the ROC curve where the truth is yes or no.
    """
    rows = []
    for held_out in sets:
        for task, truth in held_out.truths.items():
            grouped = [("paper", find_task(task).goal_prompt)]
            for prompt in prompts[task].paraphrases:
                grouped.append(("known words" if known_words.issuperset(words_of(prompt)) else "unknown words", prompt))
            grouped += [("opposites", prompt) for prompt in prompts[task].opposites]
            specs = [RewardSpec((prompt,), ("a picture",), 0.0) for _, prompt in grouped]
            for (group, prompt), rewards in zip(grouped, model.score(held_out.frames, specs).T, strict=True):
                rows.append((task, group, prompt, _agreement(rewards, truth)))
    return pd.DataFrame(rows, columns=["task", "group", "prompt", "agreement"])


def _agreement(rewards: np.ndarray, truth: np.ndarray) -> float:
    if set(np.unique(truth)) <= {0.0, 1.0}:
        return float(roc_auc_score(truth, rewards))
    return float(spearmanr(rewards, truth).statistic)


@dataclass(frozen=True)
class AttributeWalk:
    """States that differ in one attribute of the posture.

    Attributes:
        task: Whose prompt is judged.
        attribute: What changes, with its unit.
        values: Of the attribute, rising away from the goal.
        pose: Makes the pose of a value.
        yaw: Makes the turn of a value in degrees.
    """

    task: str
    attribute: str
    values: Sequence[float]
    pose: Callable[[float], Pose]
    yaw: Callable[[float], float] = lambda _: 0.0


def _between(start: str, end: str) -> Callable[[float], Pose]:
    return lambda share: interpolated(POSES[start], POSES[end], share)


def _bent(name: str) -> Callable[[float], Pose]:
    pose = POSES[name]
    # The waist gives way: the legs stay nearly upright.
    return lambda degrees: replace(pose, pitch=degrees, joints={**pose.joints, "abdomen_y": -0.7 * degrees})


TRUNK_BENT = "trunk bent forwards (degrees)"
"""The attribute of two walks."""
_DEGREES = tuple(range(0, 91, 10))
_SHARES = tuple(np.linspace(0, 1, 11))
ATTRIBUTE_WALKS = (
    AttributeWalk("humanoid-standing", TRUNK_BENT, _DEGREES, _bent("standing")),
    AttributeWalk("humanoid-standing", "from standing to squatting (share)", _SHARES, _between("standing", "squatting")),
    AttributeWalk("humanoid-standing", "from standing to kneeling (share)", _SHARES, _between("standing", "kneeling")),
    AttributeWalk("humanoid-kneeling", "from kneeling to standing (share)", _SHARES, _between("kneeling", "standing")),
    AttributeWalk("humanoid-kneeling", TRUNK_BENT, _DEGREES, _bent("kneeling")),
    AttributeWalk(
        "humanoid-arms-raised", "arms from raised to the sides (share)", _SHARES, _between("arms raised", "standing")
    ),
    AttributeWalk("humanoid-splits", "legs from the splits to together (share)", _SHARES, _between("side splits", "sitting")),
    AttributeWalk("humanoid-standing", "turn (degrees)", _DEGREES, lambda _: POSES["standing"], yaw=lambda degrees: degrees),
)
"""In the last one nothing changes that the prompt speaks of."""


def walk_attributes(model: RewardModel, frames: np.ndarray) -> pd.DataFrame:
    """Score each of `ATTRIBUTE_WALKS` with the paper's prompt of its task.

    Args:
        model: A loaded model.
        frames: Frames of the held-out set of the humanoid, uint8 (N, H, W, 3), over which a reward's range is taken.

    Returns:
        A row for each state: `task`, `attribute`, `value`, `reward`, and `range`, the reward's largest value minus its smallest
        over `frames`.
    """
    goals = {walk.task: RewardSpec((find_task(walk.task).goal_prompt,), ("a picture",), 0.0) for walk in ATTRIBUTE_WALKS}
    ranges = dict(zip(goals, np.ptp(model.score(frames, list(goals.values())), axis=0), strict=True))
    rows = []
    for walk in ATTRIBUTE_WALKS:
        states = [HumanoidState.of(walk.pose(value).qpos(walk.yaw(value))) for value in walk.values]
        rewards = model.score(humanoid.render_states(states, model.frame_format), [goals[walk.task]])[:, 0]
        for value, reward in zip(walk.values, rewards, strict=True):
            rows.append((walk.task, walk.attribute, value, reward, ranges[walk.task]))
    return pd.DataFrame(rows, columns=["task", "attribute", "value", "reward", "range"])


def monotonicity(walks: pd.DataFrame) -> pd.DataFrame:
    """Summarise the walks of one model.

    Args:
        walks: As `walk_attributes` returns them.

    Returns:
        A row for each walk: `task`, `attribute`, `spearman` (correlation of reward and attribute; -1 is a steady fall), and `fall`,
        the reward of the first state minus that of the last, as a share of the reward's range.
    """
    rows = []
    for (task, attribute), walk in walks.groupby(["task", "attribute"], sort=False):
        rewards, scale = walk["reward"].to_numpy(), walk["range"].iloc[0]
        correlation = math.nan if np.ptp(rewards) == 0 else float(spearmanr(walk["value"], rewards).statistic)
        rows.append((task, attribute, correlation, float((rewards[0] - rewards[-1]) / scale)))
    return pd.DataFrame(rows, columns=["task", "attribute", "spearman", "fall"])
