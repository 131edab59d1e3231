"""What a model understands beyond the paper's prompts: paraphrases, opposites, and single attributes of a posture.

Each prompt is judged as a reward: by its rank correlation with the truth (CartPole, MountainCar), or by the area under the ROC curve of
the states that pass the task's success test (humanoid). An attribute is judged by a walk along it, with all else fixed.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import humanoid
from vlm_rm_sweeps.pretraining.held_out import HeldOut
from vlm_rm_sweeps.pretraining.held_out_prompts import HeldOutPrompts
from vlm_rm_sweeps.pretraining.humanoid import HumanoidState
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, Pose, interpolated
from vlm_rm_sweeps.tasks.registry import find_task

_WORD = re.compile(r"[a-z]+|[0-9]+")


def words_of(text: str) -> set[str]:
    """Split a text into its words and numbers, in lower case."""
    return set(_WORD.findall(text.lower()))


def measure_prompts(
    model: RewardModel,
    sets: Collection[HeldOut],
    prompts: Mapping[str, HeldOutPrompts],
    known_words: Collection[str],
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
                grouped.append(("known words" if words_of(prompt) <= set(known_words) else "unknown words", prompt))
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


_SHARES = tuple(np.linspace(0, 1, 11))
ATTRIBUTE_WALKS = (
    AttributeWalk(
        "humanoid-standing",
        "trunk bent forwards (degrees)",
        tuple(range(0, 91, 10)),
        lambda degrees: replace(
            POSES["standing"], pitch=degrees, joints={**POSES["standing"].joints, "abdomen_y": -0.7 * degrees}
        ),
    ),
    AttributeWalk("humanoid-standing", "from standing to squatting (share)", _SHARES, _between("standing", "squatting")),
    AttributeWalk("humanoid-standing", "from standing to kneeling (share)", _SHARES, _between("standing", "kneeling")),
    AttributeWalk("humanoid-kneeling", "from kneeling to standing (share)", _SHARES, _between("kneeling", "standing")),
    AttributeWalk(
        "humanoid-kneeling",
        "trunk bent forwards (degrees)",
        tuple(range(0, 91, 10)),
        lambda d: replace(POSES["kneeling"], pitch=d, joints={**POSES["kneeling"].joints, "abdomen_y": -0.7 * d}),
    ),
    AttributeWalk(
        "humanoid-arms-raised", "arms from raised to the sides (share)", _SHARES, _between("arms raised", "standing")
    ),
    AttributeWalk("humanoid-splits", "legs from the splits to together (share)", _SHARES, _between("side splits", "sitting")),
    AttributeWalk(
        "humanoid-standing", "turn (degrees)", tuple(range(0, 91, 10)), lambda _: POSES["standing"], lambda degrees: degrees
    ),
)
"""In the last one nothing changes that the prompt speaks of."""


def walk_attributes(model: RewardModel, frame_format: FrameFormat) -> pd.DataFrame:
    """Score each of `ATTRIBUTE_WALKS` with the paper's prompt of its task.

    Args:
        model: A loaded model.
        frame_format: Size of the frames.

    Returns:
        A row for each state: `task`, `attribute`, `value`, `reward`.
    """
    rows = []
    for walk in ATTRIBUTE_WALKS:
        states = [HumanoidState.of(walk.pose(value).qpos(walk.yaw(value))) for value in walk.values]
        spec = RewardSpec((find_task(walk.task).goal_prompt,), ("a picture",), 0.0)
        rewards = model.score(humanoid.render_states(states, frame_format), [spec])[:, 0]
        rows += [(walk.task, walk.attribute, value, reward) for value, reward in zip(walk.values, rewards, strict=True)]
    return pd.DataFrame(rows, columns=["task", "attribute", "value", "reward"])


def monotonicity(walks: pd.DataFrame) -> pd.DataFrame:
    """Summarise walks: Spearman's correlation of reward and attribute (-1 is a steady fall), and the fall from first to last."""
    rows = []
    for (task, attribute), walk in walks.groupby(["task", "attribute"], sort=False):
        rewards = walk["reward"].to_numpy()
        correlation = spearmanr(walk["value"], rewards).statistic
        rows.append(
            (task, attribute, math.nan if np.ptp(rewards) == 0 else float(correlation), float(rewards[0] - rewards[-1]))
        )
    return pd.DataFrame(rows, columns=["task", "attribute", "spearman", "fall"])
