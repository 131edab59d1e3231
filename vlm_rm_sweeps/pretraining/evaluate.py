"""How good an embedded model is on states that it never saw, with the tasks' own prompts, which it never read.

Writes the model card; no figure in the card is written by hand.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState, render_states
from vlm_rm_sweeps.rewards.catalog import EMBEDDED, EMBEDDED_PREPROCESSING, embedded_manifest, load_embedded
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.task import get_task

_HELD_OUT_STATES = 2_000
_HELD_OUT_SEED = 987_654_321
"""Far from the small seeds that trainings use, so that no state is shared."""
_ALPHAS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class HeldOutResult:
    """One model at one alpha on CartPole.

    `epic`: EPIC distance to -|angle| over the whole circle and track; `spearman`, `spearman_90`: rank correlation with
    -|angle| over the circle, and within 90 degrees of upright; `peak_degrees`: the angle of the largest reward with the cart
    in the centre.
    """

    alpha: float
    epic: float
    spearman: float
    spearman_90: float
    peak_degrees: float


def evaluate_cart_pole(model: RewardModel) -> list[HeldOutResult]:
    """Held-out results of a model on CartPole for alpha 0, 0.5 and 1, with the paper's prompts."""
    task = get_task("cartpole-upright")
    rng = np.random.default_rng(_HELD_OUT_SEED)
    states = [CartPoleState(rng.uniform(-2.4, 2.4), rng.uniform(-math.pi, math.pi)) for _ in range(_HELD_OUT_STATES)]
    closeness = np.array([-abs(state.angle) for state in states])
    near = closeness > -math.pi / 2
    degrees = np.arange(-180.0, 181.0)
    line = [CartPoleState(0.0, math.radians(angle)) for angle in degrees]
    specs = [RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha) for alpha in _ALPHAS]
    rewards = model.score(render_states(states, EMBEDDED_PREPROCESSING.frame_format), specs)
    landscape = model.score(render_states(line, EMBEDDED_PREPROCESSING.frame_format), specs)
    return [
        HeldOutResult(
            alpha=alpha,
            epic=epic_distance(rewards[:, column], closeness),
            spearman=float(spearmanr(rewards[:, column], closeness).statistic),
            spearman_90=float(spearmanr(rewards[near, column], closeness[near]).statistic),
            peak_degrees=float(degrees[landscape[:, column].argmax()]),
        )
        for column, alpha in enumerate(_ALPHAS)
    ]


def frames_per_second(model: RewardModel, frames: int = 1_024) -> float:
    """Frames that the model scores in a second on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = get_task("cartpole-upright")
        spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)
        size = EMBEDDED_PREPROCESSING.size
        batch = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), np.uint8)
        model.score(batch[:64], [spec])
        started = time.perf_counter()
        model.score(batch, [spec])
        return frames / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)


def write_model_card(folder: Path) -> Path:
    """Evaluate every size in `folder` and write its model card there; returns the card's path."""
    manifest = embedded_manifest(folder)
    sizes = sorted(manifest, key=lambda size: manifest[size]["parameters"])
    lines = [
        "# The embedded family: model card",
        "",
        "Small open_clip `CLIP` models (ModifiedResNet image tower, 64 x 64 pixels, frames squashed to a square), trained by",
        "`vlm-rm pretrain` on renders of CartPole with written captions. This file is written by `vlm-rm pretrain`; every figure",
        "in it is measured by that command.",
        "",
        "## Training",
        "",
        "| model | parameters (M) | images rendered | samples seen | seed | time on one thread (min) |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        entry = manifest[size]
        lines.append(
            f"| `{EMBEDDED}/{size}` | {entry['parameters'] / 1e6:.2f} | {entry['images']} | {entry['samples']} | {entry['seed']} | "
            f"{entry['training_seconds'] / 60:.1f} |"
        )
    lines += [
        "",
        "## Held-out results on CartPole",
        "",
        f"{_HELD_OUT_STATES} states, uniform over the circle and the track, that training never saw; the task's own prompts, which no",
        "training caption repeats. EPIC distance and Spearman correlation are to -|angle|; the peak is the angle of the largest",
        "reward with the cart in the centre.",
        "",
        "| model | alpha | EPIC | Spearman | Spearman within 90 degrees | peak (degrees) |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        for result in evaluate_cart_pole(load_embedded(size, folder)):
            lines.append(
                f"| `{EMBEDDED}/{size}` | {result.alpha:g} | {result.epic:.3f} | {result.spearman:.3f} | {result.spearman_90:.3f} | "
                f"{result.peak_degrees:.0f} |"
            )
    lines += [
        "",
        "## Speed",
        "",
        "Scoring 1 024 frames of 64 x 64 pixels on one thread.",
        "",
        "| model | frames per second |",
        "|---|---|",
    ]
    lines += [f"| `{EMBEDDED}/{size}` | {frames_per_second(load_embedded(size, folder)):.0f} |" for size in sizes]
    lines += [
        "",
        "## What the models do not know",
        "",
        "Anything but CartPole as Gymnasium draws it: no other environment, camera, colour or photograph, and few words beyond",
        "those of the captions. One training seed. They are for a first look, for tests and for machines without a network; for",
        "research use open_clip's pretrained models.",
        "",
    ]
    card = folder / "MODEL_CARD.md"
    card.write_text("\n".join(lines))
    return card
