"""Backends of CLIP's image tower (`pool.backend`) and precisions: how fast each is, and how far its rewards are from torch's.

Run `.venv/bin/python benchmarks/backends.py [size ...]`; Backends whose packages are not
installed are left out. All have one thread, and take turns on the same frames of CartPole: a landscape (poles at all angles, carts
at all places) and the states that a controller visits which balances the pole with errors. CPU time counts all threads.

`deviation` is the largest difference of a reward from that of torch in fp32, over alpha 0, 0.5 and 1, and `rank` the smallest of
Spearman's correlations with it, first on the landscape, then on the visited states, where rewards differ less.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import time

import numpy as np
import torch
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.landscape import make_axis, walk
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.backends import BACKENDS
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import embedded_sizes
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision, RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

TASK = find_task("cartpole-upright")
SPECS = [RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), alpha) for alpha in (0.0, 0.5, 1.0)]
WAYS: list[tuple[BackendName, Precision]] = [*((name, "fp32") for name in BACKENDS), ("torch", "bf16")]
"""fp16 is left out: on a CPU it is several times slower still."""
VISITED, ROUNDS = 256, 3


def landscape_frames(frame_format: FrameFormat) -> np.ndarray:
    """Render CartPole at 64 angles of the pole times 4 places of the cart, uint8 (256, H, W, 3)."""
    axes = [make_axis(TASK, "theta", 64), make_axis(TASK, "x", 4)]
    return walk(TASK, axes, [frame_format]).frames[frame_format]


def visited_frames(frame_format: FrameFormat) -> np.ndarray:
    """Render states that a balancing controller visits which acts at random every third time, uint8 (VISITED, H, W, 3)."""
    env, rng, frames = TASK.make_env(frame_format), np.random.default_rng(0), []
    env.reset(seed=0)
    states = TASK.require_states()
    while len(frames) < VISITED:
        state = states.read(env)
        pull = (
            10 * float(state["theta"]) + 2 * float(state["theta_dot"]) + 0.3 * float(state["x"]) + 0.6 * float(state["x_dot"])
        )
        info = env.step(int(rng.integers(2)) if rng.random() < 1 / 3 else int(pull > 0))[-1]
        frames.append(info["frame"])
        if len(frames) % 64 == 0:
            env.reset(seed=len(frames))
    env.close()
    return np.stack(frames)


def usable_models(model_id: str) -> dict[str, ClipRewardModel]:
    """Load a model once for each way that this machine has the packages for, and say how long that takes."""
    models = {}
    for backend, precision in WAYS:
        model = ClipRewardModel(model_id)
        try:
            model.use_backend(backend, "cpu", precision)
        except UserError as error:
            print(error)
            continue
        model.load(precision=precision)
        models[f"{backend} {precision}"] = model
    return models


def main(sizes: list[str]) -> None:
    """Print a table of speed and fidelity for each size.

    Args:
        sizes: Sizes of the embedded family.
    """
    torch.set_num_threads(1)
    for size in sizes:
        models = usable_models(f"embedded/{size}")
        frame_format = next(iter(models.values())).frame_format
        sets = [landscape_frames(frame_format), visited_frames(frame_format)]
        both = np.concatenate(sets)
        rewards = {name: [model.score(frames, SPECS) for frames in sets] for name, model in models.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for _ in range(ROUNDS):
            for name, model in models.items():
                wall, cpu = time.perf_counter(), time.process_time()
                model.score(both, SPECS)
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        print("model            backend           frames/s   CPU us a frame   speed   deviation, rank: landscape       visited")
        reference = rewards["torch fp32"]
        of_torch = statistics.median(cpu for _, cpu in times["torch fp32"])
        for name in models:
            wall, cpu = (statistics.median(column) for column in zip(*times[name], strict=True))
            fidelity = []
            for ours, theirs in zip(rewards[name], reference, strict=True):
                ranks = [spearmanr(ours[:, column], theirs[:, column]).statistic for column in range(len(SPECS))]
                fidelity.append(f"{np.abs(ours - theirs).max():.1e}  {min(ranks):.6f}")
            print(
                f"embedded/{size:<7} {name:<17} {len(both) / wall:>8.0f}   {cpu / len(both) * 1e6:>14.0f}   {of_torch / cpu:>5.2f}   "
                f"              {fidelity[0]}   {fidelity[1]}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or embedded_sizes())
