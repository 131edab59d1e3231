"""One episode of the best trial's greedy policy and one of random actions: frames and CLIP reward by step.

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/episode.py FOLDER`. The best trial is the one with
the highest success, then the highest true return, among the seeds of the combination whose interquartile means are highest.
Expect the reward of the learned policy to stay high, and that of random actions to drop when the pole falls.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone, reward_model_trials

from vlm_rm_sweeps.evaluation.over_seeds import interquartile_mean
from vlm_rm_sweeps.evaluation.rollouts import (
    find_checkpoint,
    load_policy,
    load_scorer,
    rendering_of,
    run_episode,
    spec_of,
    task_of,
)
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.metrics import EVALUATION, SUCCESS, TRUE_RETURN
from vlm_rm_sweeps.palette import REFERENCE_COLOURS
from vlm_rm_sweeps.rewards.registry import known_reward_model
from vlm_rm_sweeps.training.checkpoints import TRIALS

SHOWN = 8
SEED = 12_345


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    table = reward_model_trials(runs)
    merits = [name for name in (EVALUATION + SUCCESS, EVALUATION + TRUE_RETURN) if name in table]
    if not merits:
        raise DoesNotApplyError("nothing was trained")
    cells = [name for name in ("model", "alpha", "prompt", "textures", "camera") if name in table]
    by_cell = table.groupby(cells)
    of_cells = pd.DataFrame({f"iqm_{name}": by_cell[name].transform(_interquartile_mean) for name in merits})
    best = pd.concat([table, of_cells], axis=1).sort_values([*of_cells.columns, *merits], ascending=False).iloc[0]
    checkpoint = find_checkpoint(file_inside(runs.folder, Path(TRIALS) / best["trial_id"]))
    task, spec, scorer = task_of(checkpoint), spec_of(checkpoint), load_scorer(checkpoint)
    assert spec is not None
    assert scorer is not None
    score, frame_format = scorer
    actions = task.make_env(None).action_space
    actions.seed(SEED)
    policies: dict[str, Callable[[np.ndarray], Any]] = {
        "random actions": lambda _: actions.sample(),
        "after training": load_policy(checkpoint),
    }
    colours = {"random actions": REFERENCE_COLOURS[-1], "after training": runs.colours[best["model"]]}
    steps = task.episode_actions
    chosen = np.linspace(0, steps - 1, SHOWN).round().astype(int)
    figure = plt.figure(figsize=(11, 5.8), layout="constrained")
    grid = figure.add_gridspec(3, SHOWN, height_ratios=[1, 1, 2])
    curve = figure.add_subplot(grid[2, :])
    rows = []
    for row, (name, policy) in enumerate(policies.items()):
        episode = run_episode(task, policy, SEED, frame_format, score, rendering_of(checkpoint, task), pictures=True)
        frames, in_goal, rewards = episode.pictures, episode.in_goal, episode.clip_rewards
        assert rewards is not None
        for column, step in enumerate(chosen):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(frames[step])
            axis.set(xticks=[], yticks=[], xlabel=f"step {step + 1}" if row else "", ylabel="" if column else name)
        label = f"{name} ({100 * np.mean(in_goal):.0f} % of the steps in the goal)"
        curve.plot(np.arange(1, steps + 1), rewards, label=label, color=colours[name])
        rows += [(name, step + 1, reward, goal) for step, (reward, goal) in enumerate(zip(rewards, in_goal, strict=True))]
    reward = checkpoint.content["reward"]
    assert reward is not None  # it has a spec
    model_id = reward["model"]
    parameters = known_reward_model(model_id).parameters / 1e6
    curve.set(xlabel="step", ylabel="CLIP reward", title=f'"{spec.goal_prompts[0]}"', xlim=(1, steps))
    how = f"\npolicy of step {checkpoint.env_steps:,}, {checkpoint.chosen}"
    title = f"{model_id} ({parameters:.2f} M parameters), {spec.label}{how}"
    curve.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False)
    curve.grid(alpha=0.3)
    table = pd.DataFrame(rows, columns=["policy", "step", "clip_reward", "in_goal"])
    runs.save(figure, table, "episode", seeds=f"1 seed ({best['seed']})")


def _interquartile_mean(of_seeds: pd.Series) -> float:
    return float(interquartile_mean(of_seeds.to_numpy(dtype=float)))


if __name__ == "__main__":
    draw_alone(draw)
