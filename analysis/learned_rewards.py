"""Rewards learned from 200 labels beside the cosine to the goal, of one model, on states that they have not seen.

Run `python analysis/learned_rewards.py`: it renders its own states and needs no sweep. For each task it draws 200 random states,
labels them by the task's success test, and trains `vlm-rm reward train`'s heads on their embeddings. Then it scores 1 000 other
states. With other labels a head would be another: so all this is done for five draws of the labels (`--draws`), with the same
held-out states. ROC-AUC, and false-positive rate at 95 % recall, are means over the draws, beside two kinds of uncertainty:

- `_low` and `_high`: the ends of the 95 % interval, bootstrapped over the held-out states, as means over the draws;
- `_least` and `_most`: the least and the largest value of a draw.

A reward that makes no error on the held-out states makes none in any bootstrap sample, which proves little: its interval ends where so
many states without an error become unlikely, see `bounded`. Expect the learned rewards to be clearly better where the labels have
both classes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from runs import refusals_in_words, whole_number

from vlm_rm_sweeps.cli.options import write_table
from vlm_rm_sweeps.evaluation.bootstrap import CONFIDENCE, Estimates, drawn_counts
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.detection import detection
from vlm_rm_sweeps.evaluation.heads.examples import LabelledStates
from vlm_rm_sweeps.evaluation.heads.fit import fit_head, predicted
from vlm_rm_sweeps.evaluation.heads.validate import cross_validate
from vlm_rm_sweeps.evaluation.score import in_chunks
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.goal_baseline import goal_baseline_reward
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.task import Task

TASKS = ("cartpole-upright", "mountaincar-summit", "humanoid-standing")
HIDDEN_UNITS = (0, 4)
HELD_OUT_SEED = 2


def embedded(model: ClipRewardModel, task: Task, count: int, seed: int) -> LabelledStates:
    """Draw random states of a task, render and embed them, and label them by its success test."""
    success: list[float] = []

    def frames() -> Iterator[np.ndarray]:
        for state in sampled_states(task, count, seed):
            success.append(float(bool(state.success)))
            yield state.frame

    images = np.concatenate([model.encode_frames(chunk).numpy() for chunk in in_chunks(frames(), model.frame_format)])
    return LabelledStates(images, np.array(success), np.arange(count))


def cosines(model: ClipRewardModel, task: Task, states: LabelledStates) -> np.ndarray:
    """Score states by goal-baseline regularisation at alpha 0, with the task's own prompts."""
    import torch

    goal, baseline = (model.encode_prompt(prompt)[None] for prompt in (task.goal_prompt, task.baseline_prompt))
    rewards = goal_baseline_reward(torch.from_numpy(states.images_nd), goal, baseline, torch.zeros(1))
    return rewards[:, 0].numpy()


def bounded(areas: Estimates, rates: Estimates, positives: int, negatives: int) -> tuple[Estimates, Estimates]:
    """Give the intervals of rewards without an error the width that their number of states allows.

    The end is the exact one of a binomial proportion (Clopper and Pearson, 1934), of which none of n independent trials failed:
    the share of failures with which that still happens in 2.5 % of all cases, `1 - 0.025^(1 / n)`, or about 3.7 / n. For the
    false-positive rate the trials are the negative states, as the threshold depends on the positive ones alone. For the area they
    are disjoint pairs of a positive and a negative state, of which there are as many as of the rarer ones; all pairs would not be
    independent. That is cautious: the end for the area is lower than it would have to be.

    Args:
        areas: ROC-AUC of some rewards.
        rates: False-positive rates of the same rewards.
        positives: Number of states in the goal.
        negatives: Number of other states.

    Returns:
        Areas and rates, of which no interval at 1 or 0 has a width of 0.
    """
    tail = (1 - CONFIDENCE) / 2
    least_area, largest_rate = tail ** (1 / min(positives, negatives)), 1 - tail ** (1 / negatives)
    perfect, none = (areas.value == 1) & (areas.low == 1), (rates.value == 0) & (rates.high == 0)
    return (
        areas._replace(low=np.where(perfect, least_area, areas.low)),
        rates._replace(high=np.where(none, largest_rate, rates.high)),
    )


def label_seeds(draws: int) -> list[int]:
    """Return the seeds of so many draws of the labels, none of which is that of the held-out states."""
    return [seed for seed in range(1, draws + 2) if seed != HELD_OUT_SEED][:draws]


def learned_scores(training: LabelledStates, hidden: int, testing: LabelledStates) -> np.ndarray:
    """Train a head on one draw of the labels, as `vlm-rm reward train` does, and score the held-out states."""
    penalty = cross_validate(training, hidden, seed=0).penalty
    return predicted(fit_head(training, hidden, penalty, seed=0), testing)


def over_draws(measure: str, found: Estimates) -> dict[str, float]:
    """Sum up a measure of rewards that differ in the draw of their labels alone, see the head of this file."""
    means = {measure + end: float(values.mean()) for end, values in zip(("", "_low", "_high"), found, strict=True)}
    return means | {f"{measure}_least": float(found.value.min()), f"{measure}_most": float(found.value.max())}


def compare(model: ClipRewardModel, task: Task, labels: int, held_out: int, draws: int) -> Iterator[dict[str, object]]:
    """Yield a row for each reward of a task."""
    testing = embedded(model, task, held_out, HELD_OUT_SEED)
    drawn = [embedded(model, task, labels, seed) for seed in label_seeds(draws)]
    # The cosine needs no labels, so that all draws are one.
    scores = {"goal_baseline, alpha 0": [cosines(model, task, testing)]}
    for hidden in HIDDEN_UNITS:
        name = f"learned, {hidden} hidden units" if hidden else "learned, logistic"
        scores[name] = [learned_scores(training, hidden, testing) for training in drawn]
    counts_bn = drawn_counts(testing.episodes[:, 0])
    positives = int(testing.targets_n.sum())
    in_goal = ", ".join(str(int(training.targets_n.sum())) for training in drawn)
    for name, of_draws in scores.items():
        found = detection(np.stack(of_draws, axis=1), testing.targets_n, counts_bn)
        areas, rates = bounded(*found, positives, held_out - positives)
        told: dict[str, object] = {"task": task.name, "labels": f"{in_goal} of {labels}", "reward": name}
        yield told | over_draws("roc_auc", areas) | over_draws("false_positive_rate", rates)


def main() -> None:
    """Print the table, and write it as CSV if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded/small")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--labels", type=whole_number(20, 1_000_000), default=200)
    parser.add_argument("--held-out", type=whole_number(20, 1_000_000), default=1_000)
    parser.add_argument("--draws", type=whole_number(1, 1_000), default=5, help="how often labels are drawn")
    parser.add_argument("--csv", type=Path, default=None)
    options = parser.parse_args()
    with refusals_in_words():
        model = ClipRewardModel(options.model)
        model.load()
        tasks = [find_task(name) for name in options.tasks.split(",")]
        counts = options.labels, options.held_out, options.draws
        table = pd.DataFrame([row for task in tasks for row in compare(model, task, *counts)])
        print(table.to_string(index=False, float_format="%.3f"))
        if options.csv:
            write_table(options.csv, table)


if __name__ == "__main__":
    main()
