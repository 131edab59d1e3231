"""Rewards learned from 200 labels beside the cosine to the goal, of one model, on states that they have not seen.

Run `python analysis/learned_rewards.py`: it renders its own states and needs no sweep (about two minutes of CPU time). For each
task it draws 200 random states, labels them by the task's success test, and trains `vlm-rm reward train`'s heads on their
embeddings. Then it scores 1 000 other states. ROC-AUC, and false-positive rate at 95 % recall, have 95 % intervals, bootstrapped
over the held-out states. A reward that makes no error on them makes none in any bootstrap sample, which proves little: its interval
ends where so many states without an error become unlikely, see `bounded`. Expect the learned rewards to be clearly better where the
labels have both classes.
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
TRAINING_SEED, HELD_OUT_SEED = 1, 2


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


def compare(model: ClipRewardModel, task: Task, labels: int, held_out: int) -> Iterator[dict[str, object]]:
    """Yield a row for each reward of a task."""
    training = embedded(model, task, labels, TRAINING_SEED)
    testing = embedded(model, task, held_out, HELD_OUT_SEED)
    scores = {"goal_baseline, alpha 0": cosines(model, task, testing)}
    for hidden in HIDDEN_UNITS:
        penalty = cross_validate(training, hidden, seed=0).penalty
        name = f"learned, {hidden} hidden units" if hidden else "learned, logistic"
        scores[name] = predicted(fit_head(training, hidden, penalty, seed=0), testing)
    counts_bn = drawn_counts(testing.episodes[:, 0])
    positives = int(testing.targets_n.sum())
    areas, rates = bounded(
        *detection(np.stack(list(scores.values()), axis=1), testing.targets_n, counts_bn), positives, held_out - positives
    )
    for column, name in enumerate(scores):
        measures = {"roc_auc": areas, "false_positive_rate": rates}
        yield {
            "task": task.name,
            "labels": f"{int(training.targets_n.sum())} of {labels}",
            "reward": name,
            **{
                measure + end: values[column]
                for measure, estimates in measures.items()
                for end, values in zip(("", "_low", "_high"), estimates, strict=True)
            },
        }


def main() -> None:
    """Print the table, and write it as CSV if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded/small")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--labels", type=whole_number(20, 1_000_000), default=200)
    parser.add_argument("--held-out", type=whole_number(20, 1_000_000), default=1_000)
    parser.add_argument("--csv", type=Path, default=None)
    options = parser.parse_args()
    with refusals_in_words():
        model = ClipRewardModel(options.model)
        model.load()
        tasks = [find_task(name) for name in options.tasks.split(",")]
        table = pd.DataFrame([row for task in tasks for row in compare(model, task, options.labels, options.held_out)])
        print(table.to_string(index=False, float_format="%.3f"))
        if options.csv:
            write_table(options.csv, table)


if __name__ == "__main__":
    main()
