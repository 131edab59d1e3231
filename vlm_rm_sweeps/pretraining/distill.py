"""Distillation: a small image tower learns a teacher's image embeddings on a task's own renders, in minutes on a CPU.

It starts from the image tower of an embedded model, with a linear map to the teacher's width. To a teacher, the states of one task may
be much alike, so that a constant has nearly the cosine that a perfect student would have. The map therefore learns how embeddings
differ from their mean, and the loss is the squared distance to the teacher's unit embeddings as a share of their spread: a constant
has 1. States and batches come from the seed alone, so on one machine the same call gives the same bits.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from safetensors.torch import save_file
from torch.nn import functional

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.drawing import StateDrawer, drawn_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.files import new_output
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.pretraining.student_card import Speed, student_card
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.distilled import (
    DISTILLED,
    STUDENT_FILE,
    DistilledRewardModel,
    StudentDescription,
    TowerShape,
    student_tensors,
)
from vlm_rm_sweeps.rewards.functions.goal_baseline import goal_baseline_reward
from vlm_rm_sweeps.rewards.known_states import DRIFT, KnownStates
from vlm_rm_sweeps.rewards.registry import EMBEDDED, NEWEST_EMBEDDED, find_reward_model, with_version
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task

CARD, FIDELITY = "README.md", "fidelity.csv"
ALPHAS = (0.0, 0.5, 1.0)
DRAWN, ALL_STATES = "drawn", "all"
"""States that are drawn from the task's state space; all that are held out, where there are several sets of states."""
_HELD_OUT = 5
"""One of so many images, or episodes of a data set, is held out."""
_BATCH = 64
_LEARNING_RATE = 1e-3
_LEAST_SPREAD = 1e-6
"""Of a teacher to which all states are the same, but for rounding."""
_SPEED_FRAMES, _SPEED_ROUNDS = 256, 5


@dataclass(frozen=True)
class Images:
    """What is embedded by teacher and student, each at its own size.

    Attributes:
        teachers: Unit embeddings by the teacher, float32 (N, D).
        frames: At the student's input size, uint8 (N, H, W, 3).
        states: Where each state is from, `DRAWN` or the folder of a data set, str (N,).
    """

    teachers: np.ndarray
    frames: np.ndarray
    states: np.ndarray


def check_distillable(teacher: str, student: str, task: Task) -> tuple[ClipRewardModel, ClipRewardModel]:
    """Refuse what cannot be distilled, before any state is drawn.

    Args:
        teacher: Model id of the teacher.
        student: Model id of an embedded model.
        task: The task.

    Returns:
        Teacher and student, without weights.

    Raises:
        UserError: The teacher has no embeddings, the student is none of the embedded family, or the task has no state space.
    """
    task.require_states()
    found = find_reward_model(teacher), find_reward_model(student)
    if not isinstance(found[0], ClipRewardModel) or isinstance(found[0], DistilledRewardModel):
        raise UserError(
            f"teacher {teacher!r}: expected a CLIP model, such as 'embedded/large', whose image embeddings can be learned"
        )
    if not isinstance(found[1], ClipRewardModel) or student.partition("/")[0] != EMBEDDED:
        raise UserError(f"student {student!r}: expected a model of the embedded family, such as 'embedded/small'")
    if teacher == student:
        raise UserError(f"{student!r} is both teacher and student: expected a larger teacher")
    return found[0], found[1]


def distill(
    teacher_id: str,
    task: Task,
    student_id: str,
    datasets: Sequence[StateDataset],
    images: int,
    epochs: int,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
    rendering: Rendering | None = None,
) -> pd.DataFrame:
    """Train a student, measure it on states that it has not seen, and write its folder.

    Args:
        teacher_id: Model id of the teacher.
        task: The task.
        student_id: Model id of an embedded model.
        datasets: Further states of the task, such as those that policies visited.
        images: Number of states to draw from the task's state space.
        epochs: How often each training image is seen.
        seed: Seed of states, split and batches.
        folder: A new folder.
        say: Prints a line of progress.
        rendering: How drawn states are drawn; None for the task's first textures and camera. States of data
            sets are drawn as they were.

    Returns:
        Fidelity on the held-out states, see `fidelity`.

    Raises:
        UserError: Something cannot be distilled, a data set is of another task, or the folder exists or cannot be written.
    """
    check_distillable(teacher_id, student_id, task)
    for dataset in datasets:
        if dataset.task.name != task.name:
            raise UserError(f"{dataset.folder} has states of {dataset.task.name}: expected states of {task.name}")
    if folder.exists():
        raise UserError(f"{folder} exists already and is not overwritten: choose another name")
    rendering = rendering or task.rendering()
    teacher, start = _loaded(teacher_id), _loaded(student_id)
    say(f"{teacher_id} embeds {images + sum(map(len, datasets)):,} states of {task.name}")
    training, held_out = _collect(teacher, start, task, rendering, datasets, images, seed)
    shape = _shape(start, teacher.width)
    tower = _train(_first_weights(shape, start), shape, training, epochs, seed, say)
    known = KnownStates.of(_tower_features(tower, shape, training.frames))
    about = StudentDescription(
        teacher=with_version(teacher_id, NEWEST_EMBEDDED),
        teacher_identity=teacher.weights_identity,
        student=student_id,
        task=task.name,
        images=len(training.frames),
        seed=seed,
        parameters=_count(tower) + teacher.parameters - _count(teacher.network.visual),
        tower=shape,
        limit=known.limit,
        scenes=_scenes(rendering, datasets),
    )
    with new_output(folder) as unfinished:
        unfinished.mkdir()
        file = unfinished / STUDENT_FILE
        save_file(student_tensors(tower, known), file, {DISTILLED: about.model_dump_json()})
        student = load_for_measuring(f"{DISTILLED}/{file}")
        assert isinstance(student, DistilledRewardModel)
        table = fidelity(teacher, student, held_out, task)
        say("measuring the speed of both")
        speeds = _speeds((teacher, student), held_out.frames)
        table.to_csv(unfinished / FIDELITY, index=False)
        card = student_card(about, table, {teacher_id: speeds[0], "student": speeds[1]})
        (unfinished / CARD).write_text(card, encoding="utf-8")
    return table


def _loaded(model_id: str) -> ClipRewardModel:
    model = load_for_measuring(model_id)
    assert isinstance(model, ClipRewardModel)
    return model


def _scenes(rendering: Rendering, datasets: Sequence[StateDataset]) -> tuple[tuple[str, str], ...]:
    """List textures and camera of all images, where they are known, in their order."""
    drawn = [each for dataset in datasets for each in dataset.renderings()]
    return tuple(dict.fromkeys([(rendering.textures, rendering.camera), *((each[0], each[1]) for each in drawn)]))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape(start: ClipRewardModel, embedding: int) -> TowerShape:
    config: dict[str, Any] = open_clip.get_model_config(start.source.architecture)
    vision = config["vision_cfg"]
    return TowerShape(
        layers=tuple(vision["layers"]),
        width=vision["width"],
        head_width=vision["head_width"],
        features=config["embed_dim"],
        embedding=embedding,
        preprocessing=start.source.preprocessing,
    )


def _first_weights(shape: TowerShape, start: ClipRewardModel) -> torch.nn.Sequential:
    """Make a tower with the weights of an embedded model; the map behind it is fitted later."""
    tower = shape.build()
    tower[0].load_state_dict(start.network.visual.state_dict())
    return tower


def _collect(
    teacher: ClipRewardModel,
    start: ClipRewardModel,
    task: Task,
    rendering: Rendering,
    datasets: Sequence[StateDataset],
    images: int,
    seed: int,
) -> tuple[Images, Images]:
    """Embed all states, and split them: of the drawn ones the last are held out, of data sets whole episodes."""
    rng = np.random.default_rng(seed)
    formats = {teacher.frame_format, start.frame_format}
    with StateDrawer(task, rendering, formats) as drawer:
        states = sampled_states(task, images, seed, rendering)
        drawn = _embedded(teacher, start.frame_format, (drawer.draw(state.frame, state.variables) for state in states))
    parts, out, names = [drawn], [np.arange(images) >= images - max(1, images // _HELD_OUT)], [DRAWN]
    for dataset in datasets:
        parts.append(_embedded(teacher, start.frame_format, drawn_states(dataset, formats)))
        names.append(str(dataset.folder))
        episodes = np.unique(dataset.episodes)
        chosen = rng.permutation(episodes)[: len(episodes) // _HELD_OUT]
        out.append(np.isin(dataset.episodes, chosen))
    embedded, frames = (np.concatenate(each) for each in zip(*parts, strict=True))
    origins, held = np.repeat(names, [len(each) for each in out]), np.concatenate(out)
    return Images(embedded[~held], frames[~held], origins[~held]), Images(embedded[held], frames[held], origins[held])


def _embedded(
    teacher: ClipRewardModel, frame_format: FrameFormat, drawn: Iterable[Mapping[FrameFormat, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Embed states that are drawn for the teacher and for a student with `frame_format`; return the student's frames, too."""
    embedded: list[np.ndarray] = []
    small: list[np.ndarray] = []
    waiting: list[np.ndarray] = []

    def embed() -> None:
        embedded.extend(teacher.encode_frames(np.stack(waiting)).numpy())
        waiting.clear()

    for of_state in drawn:
        if len(waiting) == teacher.micro_batch:
            embed()
        waiting.append(of_state[teacher.frame_format])
        small.append(of_state[frame_format])
    embed()
    return np.stack(embedded), np.stack(small)


def _train(
    tower: torch.nn.Sequential, shape: TowerShape, training: Images, epochs: int, seed: int, say: Callable[[str], None]
) -> torch.nn.Sequential:
    rng = np.random.default_rng((seed, 1))
    batches = len(training.frames) // _BATCH
    if not batches:
        raise UserError(f"{len(training.frames)} training images: expected at least {_BATCH}, the size of a batch")
    targets = torch.from_numpy(training.teachers)
    mean = targets.mean(dim=0)
    spread = (targets - mean).square().sum(dim=1).mean().sqrt().clamp_min(_LEAST_SPREAD)
    _fit_map(tower, shape, training.frames, ((targets - mean) / spread).numpy())
    tower.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=epochs * batches)
    for epoch in range(epochs):
        tower.train()
        order = rng.permutation(len(training.frames))
        loss_sum = 0.0
        for batch in np.split(order[: batches * _BATCH], batches):
            embedded = functional.normalize(mean + spread * tower(shape.preprocessing(training.frames[batch])), dim=-1)
            loss = (embedded - targets[batch]).square().sum(dim=1).mean() / spread**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        if epoch in (0, epochs - 1) or (epoch + 1) % 5 == 0:
            say(f"epoch {epoch + 1} of {epochs}: squared distance {loss_sum / batches:.4f} of the spread")
    linear: Any = tower[1]
    with torch.no_grad():
        linear.weight.mul_(spread)
        linear.bias.mul_(spread).add_(mean)
    return tower.eval()


@torch.no_grad()
def _fit_map(tower: torch.nn.Sequential, shape: TowerShape, frames: np.ndarray, targets: np.ndarray) -> None:
    """Set the map to the least-squares solution for the tower as it is: a random one would first spoil the tower."""
    linear: Any = tower[1]
    features = _tower_features(tower, shape, frames)
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = 1e-3 * np.trace(design.T @ design) / design.shape[1]
    gram = design.T @ design + penalty * np.eye(design.shape[1])
    solution = np.linalg.solve(gram, design.T @ targets)
    linear.weight.copy_(torch.from_numpy(solution[:-1].T))
    linear.bias.copy_(torch.from_numpy(solution[-1]))


@torch.no_grad()
def _tower_features(tower: torch.nn.Sequential, shape: TowerShape, frames: np.ndarray) -> np.ndarray:
    """Return what the tower gives to its map for each frame, float64 (N, features)."""
    encode: Any = tower.eval()[0]
    chunks = np.array_split(frames, max(1, len(frames) // _BATCH))
    return np.concatenate([encode(shape.preprocessing(chunk)).numpy() for chunk in chunks]).astype(np.float64)


def fidelity(teacher: ClipRewardModel, student: DistilledRewardModel, held_out: Images, task: Task) -> pd.DataFrame:
    """Compare a student with its teacher on images.

    Args:
        teacher: The teacher, loaded.
        student: The student, loaded.
        held_out: Images that the student has not seen.
        task: The task, for its sentences.

    Returns:
        A row for each set of `states` (and one of all, if there are several), `prompt` and `alpha`, with `spearman`, the rank
        correlation of both rewards, NaN where it is undefined. The other columns are the same for all rows of a set: `images`, their
        number; `cosine` and `cosine_5th`, mean and 5th percentile of the cosines of both embeddings; `missed`, the squared distance as
        a share of the spread of the teacher's, 1 for the best constant, NaN if they have no spread; `drift`, the share of images that
        the student takes for unlike those that it was trained on.
    """
    students, teachers = student.encode_frames(held_out.frames), torch.from_numpy(held_out.teachers)
    rewards = {
        (prompt, alpha): [_reward(teacher, images, goal, baseline, alpha) for images in (students, teachers)]
        for prompt, (goal, baseline) in _sentences(task).items()
        for alpha in ALPHAS
    }
    drifted = student.score(held_out.frames, [RewardSpec((task.goal_prompt,), (task.baseline_prompt,)).column(DRIFT)])[:, 0]
    cosines = functional.cosine_similarity(students, teachers).numpy()
    distances = (students - teachers).square().sum(dim=1).numpy()
    names = list(dict.fromkeys(held_out.states.tolist()))
    sets = {name: held_out.states == name for name in names} | (
        {ALL_STATES: np.ones(len(held_out.states), bool)} if len(names) > 1 else {}
    )
    rows: list[dict[str, Any]] = []
    for name, own in sets.items():
        spread = float((teachers[own] - teachers[own].mean(dim=0)).square().sum())
        of_set = {
            "states": name,
            "images": int(own.sum()),
            "cosine": float(cosines[own].mean()),
            "cosine_5th": float(np.percentile(cosines[own], 5)),
            "missed": float(distances[own].sum()) / spread if spread else float("nan"),
            "drift": float(drifted[own].mean()),
        }
        rows += [
            of_set | {"prompt": prompt, "alpha": alpha, "spearman": _rank_correlation(*(each[own] for each in both))}
            for (prompt, alpha), both in rewards.items()
        ]
    return pd.DataFrame(rows)


def _reward(teacher: ClipRewardModel, images: torch.Tensor, goal: str, baseline: str, alpha: float) -> np.ndarray:
    goal_1d, baseline_1d = teacher.encode_prompt(goal)[None], teacher.encode_prompt(baseline)[None]
    return goal_baseline_reward(images, goal_1d, baseline_1d, torch.tensor([alpha]))[:, 0].numpy()


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compute Spearman's; NaN where one of both is the same for all images."""
    from scipy import stats  # takes a second

    if not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def _sentences(task: Task) -> dict[str, tuple[str, str]]:
    """Return goal and baseline of several sentences, by what is compared: the task's own, a photo of it, and the reverse."""
    goal, baseline = task.goal_prompt, task.baseline_prompt
    return {
        goal: (goal, baseline),
        f"a photo of {goal}": (f"a photo of {goal}", f"a photo of {baseline}"),
        baseline: (baseline, goal),
    }


def _speeds(models: Sequence[ClipRewardModel], frames: np.ndarray) -> list[Speed]:
    """Let the models encode the same frames in turn, each at its own size, after a turn that does not count."""
    shown = [resize_frames(np.resize(frames, (_SPEED_FRAMES, *frames.shape[1:])), model.frame_format) for model in models]
    taken: list[list[tuple[float, float]]] = [[] for _ in models]
    for turn in range(_SPEED_ROUNDS + 1):
        for model, own, times in zip(models, shown, taken, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            model.encode_frames(own)
            if turn:
                times.append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = [[statistics.median(each) for each in zip(*times, strict=True)] for times in taken]
    return [Speed(_SPEED_FRAMES / wall, 1_000 * cpu / _SPEED_FRAMES) for wall, cpu in medians]
