"""What keeps a humanoid's policies from success: which conditions of the success test their states do not meet.

Run `python analysis/unmet_conditions.py results/states/lotus`, a data set of `vlm-rm states rollouts`. For each condition of the
task's success test it prints, over the states of the data set:

- `met`: the share of states that meet it;
- `missing_alone`: the share of states that meet all conditions but this one;
- `reward_met`, `reward_unmet` and `reward_missing_alone`, with `--model`: the mean reward (alpha 0, the task's own sentence) of the
  states that meet it, of those that do not, and of those that miss it alone.

A condition whose `reward_missing_alone` is as high as the `reward_met` of all conditions is one that the reward does not see: more
training does not help.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from runs import refusals_in_words

from vlm_rm_sweeps.cli.options import write_table
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset, load_states
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.humanoid.success import CONDITIONS
from vlm_rm_sweeps.tasks.state_space import RestorableStates, innermost


def conditions_met(dataset: StateDataset) -> pd.DataFrame:
    """Test the states of a data set.

    Args:
        dataset: States of one of the humanoid's tasks.

    Returns:
        A row for each state, in their order, and a column for each condition of the task's success test: bool.

    Raises:
        UserError: They are of another task, or came as images alone.
    """
    task = dataset.task
    space = task.states
    if task.name not in CONDITIONS or not isinstance(space, RestorableStates) or not dataset.variables:
        raise UserError(f"{dataset.folder} has states of {task.name}: expected states of {', '.join(CONDITIONS)}")
    env = task.native_env(task.rendering(), None)
    env.reset(seed=0)

    def rows() -> Iterator[dict[str, bool]]:
        for position in range(len(dataset)):
            space.restore(env, dataset.state(position))
            yield {name: bool(met) for name, met in CONDITIONS[task.name](innermost(env).data)}

    table = pd.DataFrame(list(rows()))
    env.close()
    return table


def summary(met: pd.DataFrame, rewards: np.ndarray | None) -> pd.DataFrame:
    """Sum up the conditions, see the head of this file.

    Args:
        met: As of `conditions_met`.
        rewards: The reward of each state, float (states,); None if unknown.

    Returns:
        A row for each condition, and `all` for the whole test.
    """
    only = (~met).where((~met).sum(axis=1) == 1, other=False)
    whole = met.assign(all=met.all(axis=1))
    table = pd.DataFrame({"met": whole.mean(), "missing_alone": only.mean()}).loc[list(whole)]
    masks = {"reward_met": whole, "reward_unmet": ~whole, "reward_missing_alone": only}
    if rewards is not None:
        of_states = pd.Series(rewards, index=met.index)
        for column, mask in masks.items():
            table[column] = pd.Series({name: of_states[mask[name]].mean() for name in mask})
    return table.rename_axis("condition").reset_index()


def main() -> None:
    """Print the table, and write it as CSV if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("states", type=Path, help="a data set of `vlm-rm states`")
    parser.add_argument("--model", help="a model, such as embedded/large, whose reward is compared")
    parser.add_argument("--csv", type=Path, default=None)
    options = parser.parse_args()
    with refusals_in_words():
        dataset = load_states(options.states)
        met = conditions_met(dataset)
        rewards = None
        if options.model:
            own = RewardSpec((dataset.task.goal_prompt,), (dataset.task.baseline_prompt,), alpha=0.0)
            rewards = score_states(load_for_measuring(options.model), dataset, [own])[:, 0]
        table = summary(met, rewards)
        print(f"{len(met)} states of {dataset.task.name}")
        print(table.to_string(index=False, float_format="%.3f", na_rep="-"))
        if options.csv:
            write_table(options.csv, table)


if __name__ == "__main__":
    main()
