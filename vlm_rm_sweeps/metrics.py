"""The home of every metric: its name, unit and meaning; the `info` keys of environments; the success rule; trial status.

Names are stable: MLflow runs, journals, tables and checkpoints on disk use them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """What one metric measures.

    Attributes:
        name: The name on disk and in MLflow. One that ends in `/` is a prefix: there is one metric for each name appended to
            it.
        unit: Unit of the values.
        meaning: A sentence for tables.
    """

    name: str
    unit: str
    meaning: str


METRICS: dict[str, Metric] = {}
"""Every metric of a trial, by name."""


def _metric(name: str, unit: str, meaning: str) -> str:
    METRICS[name] = Metric(name, unit, meaning)
    return name


ENV_STEPS = _metric(
    "env_steps", "steps", "Environment steps sampled since the start of the trial; the step of every other metric."
)

CLIP_RETURN = _metric("clip_return", "reward", "Sum of the reward model's rewards over an episode, mean over episodes.")
TRUE_RETURN = _metric("true_return", "reward", "Sum of the environment's own rewards over an episode, mean over episodes.")
SUCCESS = _metric("success", "share", "Share of episodes that succeeded: see `is_success`.")
GOAL_FRACTION = _metric("goal_fraction", "share", "Share of an episode's steps in the goal, mean over episodes.")

EVALUATION = "evaluation_"
"""Prefix of the four metrics above for the greedy policy: at the end of a trial and, if it is evaluated before, at that step."""
for _name in (CLIP_RETURN, TRUE_RETURN, SUCCESS, GOAL_FRACTION):
    _metric(
        EVALUATION + _name,
        METRICS[_name].unit,
        f"Of the greedy policy, at the end or at an evaluation before: {METRICS[_name].meaning}",
    )

STEPS_PER_SECOND = _metric(
    "env_steps_per_second", "steps/s", "Environment steps per second of wall time since the result before."
)
UPDATES = _metric("updates", "updates", "Gradient updates since the start of the trial.")
UPDATES_PER_STEP = _metric("updates_per_step", "updates/step", "Gradient updates per environment step since the result before.")
ITERATION_SECONDS = _metric("iteration_seconds", "s", "Wall time since the result before.")
SAMPLING_SECONDS = _metric(
    "sampling_seconds",
    "s",
    "Time in the env runners: environment steps and rendering; if they are remote, or rollouts are not replayed, also the wait.",
)
REPLAY_SECONDS = _metric("replay_seconds", "s", "Time spent drawing batches from the replay buffer.")
UPDATE_SECONDS = _metric("update_seconds", "s", "Time in the learner.")
RENDER_SECONDS = _metric("render_seconds", "s", "Time spent rendering frames.")
ENCODE_SECONDS = _metric("encode_seconds", "s", "Time that reward servers spent on this trial's frames.")
WAIT_SECONDS = _metric("reward_wait_seconds", "s", "Time that the trial waited for rewards.")
FRAMES_SCORED = _metric(
    "frames_scored", "frames", "Frames encoded since the result before: of each step, or of those that `score_every` says."
)
MICRO_BATCH = _metric(
    "micro_batch", "frames", "Frames in one forward pass; smaller than configured after a server ran out of memory."
)

PARAMETERS_MILLIONS = _metric("parameters_millions", "millions", "Size of the reward model.")
EPIC_DISTANCE = _metric("epic_distance", "0 to 1", "EPIC distance between reward model and truth, before training.")
EPIC_LOW = _metric("epic_low", "0 to 1", "Lower end of the 95 % interval of the EPIC distance.")
EPIC_HIGH = _metric("epic_high", "0 to 1", "Upper end of the 95 % interval of the EPIC distance.")
STARC_DISTANCE = _metric("starc_distance", "0 to 1", "STARC distance (L1) between reward model and truth, before training.")
PEARSON = _metric("pearson", "-1 to 1", "Linear correlation of reward and truth, before training.")
SPEARMAN = _metric("spearman", "-1 to 1", "Rank correlation of reward and truth, before training.")
ROC_AUC = _metric("roc_auc", "0 to 1", "Area under the ROC curve of the reward for a truth that is yes or no, before training.")
FALSE_POSITIVE_RATE = _metric(
    "false_positive_rate",
    "0 to 1",
    "False-positive rate at the threshold that keeps 95 % of the true positives, before training.",
)
VALUE_ORDER_CORRELATION = _metric(
    "value_order_correlation", "-1 to 1", "Rank correlation of the reward with time, mean over successful episodes."
)
KENDALL_TAU = _metric(
    "kendall_tau", "-1 to 1", "Kendall's tau between the reward's ranking of policies and their true ranking."
)

RewardMeasure = Literal[
    "epic_distance",
    "starc_distance",
    "pearson",
    "spearman",
    "roc_auc",
    "false_positive_rate",
    "value_order_correlation",
    "kendall_tau",
]
"""The measures of a reward against a truth, see `evaluation.measures`."""
HEADINGS: dict[RewardMeasure, str] = {
    "epic_distance": "EPIC",
    "starc_distance": "STARC",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "roc_auc": "ROC-AUC",
    "false_positive_rate": "FPR95",
    "value_order_correlation": "VOC",
    "kendall_tau": "Kendall",
}
"""Short names of these measures, for tables."""
SMALLER_IS_BETTER = (EPIC_DISTANCE, STARC_DISTANCE, FALSE_POSITIVE_RATE)
"""Of these measures; of all others, larger is."""
INTERVALS: dict[str, tuple[str, str]] = {EPIC_DISTANCE: (EPIC_LOW, EPIC_HIGH)}
"""The ends of the 95 % interval of each measure that has one."""
for _name, _stem in (
    (STARC_DISTANCE, "starc"),
    (ROC_AUC, ROC_AUC),
    (FALSE_POSITIVE_RATE, FALSE_POSITIVE_RATE),
    (VALUE_ORDER_CORRELATION, "voc"),
    (KENDALL_TAU, "kendall"),
):
    _unit = METRICS[_name].unit
    INTERVALS[_name] = (
        _metric(f"{_stem}_low", _unit, f"Lower end of the 95 % interval of {_name}."),
        _metric(f"{_stem}_high", _unit, f"Upper end of the 95 % interval of {_name}."),
    )

REWARD_THRESHOLD = _metric("reward_threshold", "reward", "Measured threshold of the trial's reward, before training.")

AUDIT_PROXY = _metric("audit_proxy_reward", "reward/step", "Mean reward by the spec that the trial learns from.")
AUDIT_TRUE_REWARD = _metric("audit_true_reward", "reward/step", "Mean of the environment's own reward.")
AUDIT_GOAL_FRACTION = _metric("audit_goal_fraction", "share", "Share of steps in the goal; missing where success is unknown.")
AUDIT_SPEC = _metric("audit_spec/", "reward/step", "Mean reward by another spec of the trial's model.")
AUDIT_GOLD = _metric(
    "audit_gold/",
    "reward/step",
    "Mean reward by another model, for the trial's own spec, or for its goal and baseline alone if it cannot compute the reward.",
)
AUDIT_COLUMN = _metric(
    "audit_column/", "share or number", "Mean of what the trial's model itself tells of each frame, such as `drift`."
)
AUDIT_SECONDS = _metric("audit_seconds", "s", "Time that the trial waited for its gold models.")
ALARM = _metric("overoptimisation_alarm", "0 or 1", "1 if the learned reward rises while the truth and all gold models fall.")

SETTING_OVER_STEPS = _metric(
    "setting/", "the setting's", "A setting of the algorithm that population-based training changes, from that step on."
)

TIME_MS = "time_ms"
"""Key of a result: when it was made, in milliseconds since 1970."""
NOTE = "note"
"""Key of a result: a human-readable event, such as "resumed from step 5,000"."""
REMARKS = "remarks"
"""Key of a result: what the audit had to do without, or judges by something else, in sentences."""
FINISHED = "finished"
"""Key of the last result of a trial: it has finished. Metrics do not tell, because one that is not finite is left out."""
REACHED = "reached"
"""Key of the last result of a trial that ended early because it was good enough: what it reached."""
COMPARED = "compared"
"""Key of a result at which a trial has a checkpoint and is compared with its population, for which it may have to wait."""
FAILURE = "failure"
"""Key of the final result of a failed trial: the error message."""

REWARD = "reward"
"""Column of tables, tag and parameter: the label of a reward, where rewards are named, beside `alpha`."""
SAMPLE = "sample"
"""Column of tables, tag and parameter: of a search, the number of the sample."""

TAKEOVERS = "takeovers"
"""Column of tables and tag: how often a trial went on with another one's training and with other values."""

INFO_FRAME = "frame"
"""Key of an environment's `info`: the rendered frame after the step, uint8 (H, W, 3)."""
INFO_RENDER_SECONDS = "render_seconds"
"""Key of `info`: the time that rendering the frame took, in seconds."""
INFO_TRUE_REWARD = "true_reward"
"""Key of `info`: the environment's own reward, before it was replaced."""
INFO_SUCCESS = "success"
"""Key of `info`: whether the state after the step is in the goal. Missing where success is unknown."""

SUCCESSFUL_FRACTION = 0.5
"""The share of an episode's steps that must be in the goal (paper, section 4)."""


def is_success(goal_fraction: float) -> bool:
    """Decide whether an episode succeeded: at least half of its steps are in the goal (paper, section 4).

    Args:
        goal_fraction: Share of the episode's steps whose state is in the goal, 0 to 1.

    Returns:
        Whether it reaches `SUCCESSFUL_FRACTION`.
    """
    return goal_fraction >= SUCCESSFUL_FRACTION


BestBy = Literal["success", "true_return", "clip_return"]
"""The metric that a trial's best policy is chosen by.

It is the mean over the training episodes that ended since the previous result, which explore; or, with
`trial.evaluation_interval`, over greedy episodes.
"""


class TrialStatus(StrEnum):
    """The status of a trial, as tables show it."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    UNFINISHED = "unfinished"


DONE = (TrialStatus.FINISHED, TrialStatus.STOPPED)
"""Of trials that ran to their end, or as far as the sweep file lets them go."""


class RunStatus(StrEnum):
    """The status of an MLflow run, which the journal uses too."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
