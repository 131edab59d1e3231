"""What the best trial learned: frames of one episode of its greedy policy, and of random actions, each with its CLIP reward.

Run: make analysis SWEEP_RUN=results/quickstart-... (or: python analysis/episode.py FOLDER). The best trial is that with the
highest success, then true return, among those that learned from a reward model. Expect the reward of the learned policy to
stay high, and that of random actions to fall with the pole.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from ray.rllib.core.rl_module.rl_module import RLModule
from runs import SweepRuns

from vlm_rm_sweeps.rewards.catalog import find_model, load_reward_model
from vlm_rm_sweeps.sweeping.spec import load_sweep
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole

SHOWN = 8
SEED = 12_345


def episode(policy: Any, steps: int) -> tuple[np.ndarray, list[bool]]:
    """Frames (T, H, W, 3) as the environment draws them, and whether each state is in the goal."""
    env = UprightCartPole()
    observation, _ = env.reset(seed=SEED)
    frames, in_goal = [], []
    for _ in range(steps):
        observation, _, _, _, info = env.step(policy(observation))
        frames.append(env.render())
        in_goal.append(info["success"])
    return np.stack(frames), in_goal


def main() -> None:
    runs = SweepRuns(Path(sys.argv[1]))
    table = runs.trials()
    best = table[table["prompt"] != "-"].sort_values(["evaluation_success", "evaluation_true_return"], ascending=False).iloc[0]
    sweep = load_sweep(runs.folder / "sweep.yaml")
    trial = next(trial for trial in sweep.trials() if trial.trial_id == best["trial_id"])
    spec = trial.spec()
    assert spec is not None
    module: Any = RLModule.from_checkpoint(
        runs.folder.resolve() / best["checkpoint"] / "learner_group/learner/rl_module/default_policy"
    )

    def greedy(observation: np.ndarray) -> int:
        with torch.no_grad():
            return int(module.forward_inference({"obs": torch.from_numpy(observation)[None]})["actions"][0])

    rng = np.random.default_rng(SEED)
    policies = {"random actions": lambda _: int(rng.integers(2)), "after training": greedy}
    model = load_reward_model(trial.model_id)
    steps = sweep.the_task().episode_steps
    chosen = np.linspace(0, steps - 1, SHOWN).round().astype(int)
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, SHOWN, height_ratios=[1, 1, 2])
    curve = figure.add_subplot(grid[2, :])
    rows = []
    for row, (name, policy) in enumerate(policies.items()):
        frames, in_goal = episode(policy, steps)
        rewards = model.score(frames, [spec])[:, 0]
        for column, step in enumerate(chosen):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(frames[step])
            axis.set(xticks=[], yticks=[], xlabel=f"step {step + 1}" if row else "", ylabel="" if column else name)
        curve.plot(np.arange(1, steps + 1), rewards, label=f"{name} ({100 * np.mean(in_goal):.0f} % of the steps in the goal)")
        rows += [(name, step + 1, reward, goal) for step, (reward, goal) in enumerate(zip(rewards, in_goal, strict=True))]
    parameters = find_model(trial.model_id).parameters / 1e6
    curve.set(xlabel="step", ylabel="CLIP reward", title=f'"{trial.prompt.goal[0]}"' if trial.prompt else "", xlim=(1, steps))
    curve.legend(title=f"{trial.model_id} ({parameters:.2f} M parameters), alpha {trial.alpha:g}", loc="center right")
    curve.grid(alpha=0.3)
    runs.save(figure, pd.DataFrame(rows, columns=["policy", "step", "clip_reward", "in_goal"]), "episode")


if __name__ == "__main__":
    main()
