"""Evaluation of the embedded models on held-out data: all measures of the model card.

It answers six questions. Do captions in unseen wordings match their states? Does the reward for the paper's own prompts follow
the truth? And for paraphrases and opposites of them? Does it fall as a single attribute leaves the goal? Where does it peak, at each
alpha? How much worse is it from unseen camera angles?
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.bootstrap import bootstrap_interval, drawn_counts
from vlm_rm_sweeps.evaluation.epic import epic_distances
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.measures import measure
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, PARAMETERS_MILLIONS
from vlm_rm_sweeps.pretraining import cart_pole, held_out, mountain_car
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState
from vlm_rm_sweeps.pretraining.dataset import sample_states
from vlm_rm_sweeps.pretraining.evaluate_prompts import measure_prompts, walk_attributes
from vlm_rm_sweeps.pretraining.held_out import HeldOut, Retrieval
from vlm_rm_sweeps.pretraining.held_out_prompts import TEST
from vlm_rm_sweeps.pretraining.mountain_car import FLAG, LEFT_END, RIGHT_END, MountainCarState
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import (
    EMBEDDED_PREPROCESSING,
    check_embedded_files,
    embedded_manifest,
    embedded_source,
    known_words,
)
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MAIN_SETS = ("cart pole", "mountain car", "humanoid")
"""The sets whose ten tasks enter the mean EPIC distance."""
_VALLEY = -math.pi / 6


@dataclass(frozen=True)
class HeldOutSets:
    """All held-out data, rendered once for all models.

    Attributes:
        sets: Held-out sets by name.
        retrievals: Clear cases by environment.
        cart_pole_line: Frames of the pole from -90 to 90 degrees, cart at the centre, uint8 (N, H, W, 3).
        mountain_car_lines: By textures, frames of the car along the track, uint8 (N, H, W, 3).
    """

    sets: Mapping[str, HeldOut]
    retrievals: Mapping[str, Retrieval]
    cart_pole_line: np.ndarray
    mountain_car_lines: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FamilyResults:
    """Results for one training of the family, as tables.

    All tables but `captions`, which describes the training data, have a column `size`.

    Attributes:
        folder: Folder of the training.
        measures: A row for each set, task and alpha.
        means: A row for each alpha: mean EPIC distance over the tasks of the main sets, with its bootstrap interval.
        landscapes: A row for each landscape, point and alpha, with the reward.
        peaks: A row for each landscape and alpha.
        prompts: A row for each held-out prompt, see `measure_prompts`.
        walks: A row for each state of the attribute walks, see `walk_attributes`.
        retrieval: A row for each environment: share of the frames whose own caption is the nearest.
        speed: Frames per second on one thread.
        captions: A row for each environment: number of training images, number of distinct captions in a sample of captions,
            and examples.
    """

    folder: Path
    measures: pd.DataFrame
    means: pd.DataFrame
    landscapes: pd.DataFrame
    peaks: pd.DataFrame
    prompts: pd.DataFrame
    walks: pd.DataFrame
    retrieval: pd.DataFrame
    speed: pd.DataFrame
    captions: pd.DataFrame


_LINE_DEGREES = np.arange(-90.0, 91.0)
_LINE_POSITIONS = np.linspace(LEFT_END, RIGHT_END, 173)
_CAPTIONED_STATES = 6_000
_CAPTIONS_OF_A_STATE = 5
_EXAMPLES = 4


def render_test_sets(frame_format: FrameFormat = EMBEDDED_PREPROCESSING.frame_format) -> HeldOutSets:
    """Render all held-out data, which is the same each time.

    Args:
        frame_format: Size of the frames.

    Returns:
        The data for `evaluate_family`.
    """
    textures: tuple[str, ...] = ("modified", "original")
    return HeldOutSets(
        sets={
            "cart pole": held_out.held_out_cart_pole(frame_format),
            "mountain car": held_out.held_out_mountain_car(frame_format),
            "humanoid": held_out.held_out_humanoid(frame_format),
            "mountain car, original textures": held_out.held_out_mountain_car(frame_format, "original"),
            "humanoid, unseen cameras": held_out.held_out_humanoid(frame_format, unseen_cameras=True),
        },
        retrievals={
            "cart pole": held_out.retrieval_cart_pole(frame_format),
            "mountain car": held_out.retrieval_mountain_car(frame_format),
            "humanoid": held_out.retrieval_humanoid(frame_format),
        },
        cart_pole_line=cart_pole.render_states(
            [CartPoleState(0.0, math.radians(degrees)) for degrees in _LINE_DEGREES], frame_format
        ),
        mountain_car_lines={
            each: mountain_car.render_states([MountainCarState(x, each) for x in _LINE_POSITIONS], frame_format)
            for each in textures
        },
    )


def check_family(folder: Path) -> None:
    """Refuse a folder that cannot be evaluated, before the minutes that this takes.

    Args:
        folder: As `pretrain` wrote it.

    Raises:
        UserError: Its manifest is missing, damaged or empty; weights or a vocabulary are missing, or others than were trained; or the
            words of the captions are missing, which version 0.1 did not write.
    """
    sizes = embedded_manifest(folder)
    if not sizes:
        raise UserError(f"{folder}: no size has been trained: run the same `vlm-rm pretrain` again, which resumes")
    for size in sizes:
        check_embedded_files(size, folder)
    known_words(folder)


def evaluate_family(folder: Path, tests: HeldOutSets) -> FamilyResults:
    """Evaluate all sizes of a training, smallest first.

    Args:
        folder: As `pretrain` wrote it.
        tests: The held-out data.

    Returns:
        Everything that the model card needs.
    """
    manifest = embedded_manifest(folder)
    sizes = sorted(manifest, key=lambda size: int(manifest[size]["parameters"]))
    models = {size: _load(size, folder) for size in sizes}
    speeds = dict(zip(sizes, frames_per_second(list(models.values())), strict=True))
    words = known_words(folder)
    tables: dict[str, list[pd.DataFrame]] = {}
    for size, model in models.items():
        measures, means = measure_rewards(model, tests.sets)
        landscapes = walk_landscapes(model, tests)
        of_size = {
            "measures": measures,
            "means": means,
            "landscapes": landscapes,
            "peaks": find_peaks(landscapes),
            "prompts": measure_prompts(model, [tests.sets[name] for name in MAIN_SETS], TEST, words),
            "walks": walk_attributes(model, tests.sets["humanoid"].frames),
            "retrieval": retrieve(model, tests.retrievals),
            "speed": pd.DataFrame([{"frames_per_second": speeds[size]}]),
        }
        model_columns: dict[str, Any] = {"size": size, PARAMETERS_MILLIONS: model.parameters / 1e6}
        for name, table in of_size.items():
            tables.setdefault(name, []).append(table.assign(**model_columns))
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    training = manifest[sizes[0]]
    captions = describe_captions(int(training["images"]), int(training["seed"]))
    return FamilyResults(folder, **joined, captions=captions)


def _load(size: str, folder: Path) -> RewardModel:
    source = embedded_source(size, folder)
    model = ClipRewardModel(source.model_id, source)
    model.load()
    return model


def paper_specs(task_name: str) -> list[RewardSpec]:
    """Make the reward specs of a task's own prompts, one for each of `ALPHAS`.

    Args:
        task_name: For example `cartpole-upright`.

    Returns:
        Specs in the order of `ALPHAS`.
    """
    task = find_task(task_name)
    return [RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha) for alpha in ALPHAS]


def measure_rewards(model: RewardModel, sets: Mapping[str, HeldOut]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure one model on all sets. Each frame is encoded once for all tasks and alphas.

    Args:
        model: A loaded model.
        sets: Held-out sets by name.

    Returns:
        `measures` and `means` of `FamilyResults`.
    """
    rows: list[dict[str, float | str]] = []
    samples: list[np.ndarray] = []
    for name, test in sets.items():
        specs = [spec for task in test.truths for spec in paper_specs(task)]
        rewards = model.score(test.frames, specs)
        for index, (task, values) in enumerate(test.truths.items()):
            own = rewards[:, index * len(ALPHAS) : (index + 1) * len(ALPHAS)].astype(np.float64)
            labels = [f"{model.model_id} at alpha {alpha:g} on {task}" for alpha in ALPHAS]
            for alpha, measures in zip(ALPHAS, measure(own, Truth(task, values), labels), strict=True):
                rows.append({"set": name, "task": task, "alpha": alpha, **measures.to_dict()})
            if name in MAIN_SETS:
                samples.append(epic_distances(drawn_counts(np.arange(len(values))), own, values))
    table = pd.DataFrame(rows)
    means = table[table["set"].isin(MAIN_SETS)].groupby("alpha")[[EPIC_DISTANCE]].mean().reset_index()
    if samples:
        means[EPIC_LOW], means[EPIC_HIGH] = bootstrap_interval(np.mean(samples, axis=0))
    return table, means


def walk_landscapes(model: RewardModel, tests: HeldOutSets) -> pd.DataFrame:
    """Score one model's landscapes (paper, Figure 2): the pole within 90 degrees of upright, and the car along the track.

    Args:
        model: A loaded model.
        tests: The held-out data.

    Returns:
        `landscapes` of `FamilyResults`.
    """
    lines = [("pole angle (degrees)", "cartpole-upright", _LINE_DEGREES, tests.cart_pole_line)]
    for textures, line in tests.mountain_car_lines.items():
        lines.append((f"car position, {textures} textures", "mountaincar-summit", _LINE_POSITIONS, line))
    parts = []
    for name, task, positions, frames in lines:
        rewards = model.score(frames, paper_specs(task))
        for alpha, column in zip(ALPHAS, rewards.T, strict=True):
            parts.append(pd.DataFrame({"landscape": name, "alpha": alpha, "position": positions, "reward": column}))
    return pd.concat(parts, ignore_index=True)


def find_peaks(landscapes: pd.DataFrame) -> pd.DataFrame:
    """Find where the reward of each landscape is largest, and its rank correlation with closeness to the goal.

    Args:
        landscapes: As `walk_landscapes` returns them.

    Returns:
        `peaks` of `FamilyResults`. For the car, the correlation is over the half of the track with the flag.
    """
    rows = []
    for (name, alpha), line in landscapes.groupby(["landscape", "alpha"], sort=False):
        peak = line["position"].iloc[line["reward"].argmax()]
        goal, start = (0.0, -math.inf) if str(name).startswith("pole") else (FLAG, _VALLEY)
        ranked = line[line["position"] >= start]
        correlation = spearmanr(ranked["reward"], -(ranked["position"] - goal).abs()).statistic
        rows.append((name, alpha, peak, correlation))
    return pd.DataFrame(rows, columns=["landscape", "alpha", "peak", "spearman"])


def retrieve(model: RewardModel, retrievals: Mapping[str, Retrieval]) -> pd.DataFrame:
    """Measure how often the captions of a frame's own kind are the nearest, by mean cosine similarity.

    Args:
        model: A loaded model.
        retrievals: Clear cases by environment.

    Returns:
        `retrieval` of `FamilyResults`: `environment`, `found` (share of the frames) and `by_chance`.
    """
    rows = []
    for name, retrieval in retrievals.items():
        kinds = list(retrieval.wordings)
        # With a single goal prompt and alpha 0, the reward is the cosine similarity.
        specs = [RewardSpec((wording,), ("a picture",), 0.0) for kind in kinds for wording in retrieval.wordings[kind]]
        of_each = np.array([kind for kind in kinds for _ in retrieval.wordings[kind]])
        scores = model.score(retrieval.frames, specs)
        cosines = np.stack([scores[:, of_each == kind].mean(axis=1) for kind in kinds], axis=1)
        found = [kinds[index] for index in cosines.argmax(axis=1)]
        right = np.mean([own == nearest for own, nearest in zip(retrieval.kinds, found, strict=True)])
        rows.append({"environment": name, "found": float(right), "by_chance": 1 / len(kinds)})
    return pd.DataFrame(rows)


def describe_captions(images: int, seed: int) -> pd.DataFrame:
    """Describe the training captions, from a sample that is drawn as in training.

    Args:
        images: Number of training images.
        seed: Seed of the training.

    Returns:
        `captions` of `FamilyResults`.
    """
    facts = []
    for environment, states in sample_states(_CAPTIONED_STATES, seed):
        rng = np.random.default_rng(seed)
        captions = [caption for _ in range(_CAPTIONS_OF_A_STATE) for caption in caption_batch(states, rng)]
        shown = round(images * len(states) / _CAPTIONED_STATES)
        distinct, examples = f"{len(set(captions))} of {len(captions)}", "; ".join(captions[:_EXAMPLES])
        facts.append((environment, shown, distinct, examples))
    return pd.DataFrame(facts, columns=["environment", "images", "captions", "examples"])


def frames_per_second(models: Sequence[RewardModel], frames: int = 1_024, turns: int = 5) -> list[float]:
    """Measure the speed of models on one thread. The models take turns.

    Args:
        models: Loaded models.
        frames: Frames scored in each turn.
        turns: Timed turns of each model, after one warm-up turn.

    Returns:
        Frames per second of each model, median over the turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spec = paper_specs("cartpole-upright")[2]
        size = EMBEDDED_PREPROCESSING.size
        batch = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), np.uint8)
        seconds: list[list[float]] = [[] for _ in models]
        for turn in range(turns + 1):
            for model, of_model in zip(models, seconds, strict=True):
                started = time.perf_counter()
                model.score(batch, [spec])
                if turn:  # the first is the warm-up
                    of_model.append(time.perf_counter() - started)
        return [frames / statistics.median(of_model) for of_model in seconds]
    finally:
        torch.set_num_threads(threads)
