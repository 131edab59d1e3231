"""Evaluation of learned policies: episodes, scored by a reward model in this process, without a Ray cluster."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from vlm_rm_sweeps.errors import DamagedFileError, UserError
from vlm_rm_sweeps.evaluation.score import refuse_not_finite
from vlm_rm_sweeps.files import new_output, problems_in
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_FRAME, INFO_SUCCESS, INFO_TRUE_REWARD, is_success
from vlm_rm_sweeps.rewards.columns import score_episode
from vlm_rm_sweeps.rewards.functions.registry import make_reward
from vlm_rm_sweeps.rewards.registry import find_reward_model, known_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec, judges_by_prompts
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.tasks.control import Control
from vlm_rm_sweeps.tasks.gym_task import GymEnv, known_env
from vlm_rm_sweeps.tasks.registry import known_task
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.checkpoints import CHECKPOINT, Checkpoint, TrialFolder, is_checkpoint, read_checkpoint
from vlm_rm_sweeps.training.policy import Policy
from vlm_rm_sweeps.videos import EPISODE_NUMBERS, PLAIN_VIDEO, VIDEO_SUFFIXES, EpisodeContent, write_episode, write_video

CONFIDENCE = 0.95
Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Scores the frames of an episode, uint8 (T, H, W, 3), with its true rewards (T,), and returns rewards, float32 (T,)."""
_PICTURE_EDGE = 256
_STRIP, _CURVE = 114, 46
"""Height in pixels of what is drawn beneath a picture, and of the curve in it."""
_MARGIN = 8


@dataclass(frozen=True)
class Episode:
    """One episode of T steps. All arrays but `observations` describe the states *after* each step.

    Attributes:
        observations: (T + 1, ...), the initial one included.
        true_rewards: The environment's own rewards, float (T,).
        in_goal: 1 where the state passes the task's success test, else 0, float (T,); NaN throughout if the task has no such
            test.
        frames: At the reward model's input size, uint8 (T, H, W, 3); None if none were rendered, or they were dropped after
            scoring.
        clip_rewards: Rewards of the frames, float32 (T,); None if nothing was scored.
        pictures: At the environment's own size, T arrays uint8 (H, W, 3); empty unless asked for.
        visited: Return value of the caller's `visit` for each state; empty without it.
        judged: Returns by other models, by model id.
    """

    observations: np.ndarray
    true_rewards: np.ndarray
    in_goal: np.ndarray
    frames: np.ndarray | None = None
    clip_rewards: np.ndarray | None = None
    pictures: list[np.ndarray] = field(default_factory=list)
    visited: list[Any] = field(default_factory=list)
    judged: Mapping[str, float] = field(default_factory=dict)

    @property
    def true_return(self) -> float:
        """Sum of the true rewards."""
        return float(self.true_rewards.sum())

    @property
    def clip_return(self) -> float:
        """Sum of the reward model's rewards; NaN if nothing was scored."""
        return float("nan") if self.clip_rewards is None else float(self.clip_rewards.astype(np.float64).sum())

    @property
    def goal_fraction(self) -> float:
        """Share of the steps in the goal, 0 to 1; NaN if the task has no success test."""
        return float(self.in_goal.mean())

    @property
    def success(self) -> bool | None:
        """Whether at least half of the steps are in the goal; None if the task has no success test."""
        return None if np.isnan(self.in_goal).any() else is_success(self.goal_fraction)

    def numbers(self) -> dict[str, float | bool | None]:
        """Return the episode's `EPISODE_NUMBERS` by name; NaN or None where unknown."""
        return {name: getattr(self, name) for name in EPISODE_NUMBERS}


def find_checkpoint(place: Path | RemoteFolder, last: bool = False) -> Checkpoint:
    """Find a checkpoint by its folder or by that of its trial.

    Args:
        place: Folder of a checkpoint or of a trial, or the address of one.
        last: Of a trial, prefer the last policy; by default the best one is preferred. The other one is used if it is missing.

    Returns:
        The checkpoint, which is on this machine now.

    Raises:
        UserError: There is none, or it is damaged.
        StoreError: It is at an address that does not answer.
    """
    if is_checkpoint(place):
        return read_checkpoint(place.above.fetch_folder(place.name) if isinstance(place, RemoteFolder) else place)
    trial = TrialFolder(place)
    found = (trial.last()[0] or trial.best()) if last else (trial.best() or trial.last()[0])
    if found is not None:
        return found
    if isinstance(place, RemoteFolder):
        raise UserError(f"{place} has no checkpoint: expected the address of a trial, such as {place / 'trials/<trial id>'}")
    return read_checkpoint(place)


def task_of(checkpoint: Checkpoint) -> Task:
    """Find the task that the checkpoint's policy was trained for.

    Args:
        checkpoint: A policy for a task, or for an `env` of a sweep file.

    Returns:
        The task, acted on and observed as in training.

    Raises:
        UserError: The task is unknown, see `known_task`, is an environment of a module that the user has not named, or its control
            is not described as by this version.
    """
    env = checkpoint.content["env"]
    try:
        task = known_task(checkpoint.content["task"]) if env is None else known_env(GymEnv.model_validate(env)).task()
        return task.controlled(Control.model_validate(checkpoint.content.get("control", {})))
    except ValidationError as error:
        raise DamagedFileError(f"{checkpoint.folder / CHECKPOINT} is damaged: {problems_in(error)}") from error
    except UserError as error:
        raise UserError(f"{checkpoint.folder}: {error}") from error


def rendering_of(checkpoint: Checkpoint, task: Task) -> Rendering:
    """Return how frames were rendered when the checkpoint's policy was trained.

    Args:
        checkpoint: The checkpoint.
        task: Its task, see `task_of`.

    Returns:
        The rendering.

    Raises:
        UserError: The task has no such textures or camera.
    """
    drawn = checkpoint.content["rendering"]
    try:
        return task.rendering(drawn["textures"], drawn["camera"], drawn["profile"])
    except UserError as error:
        raise UserError(f"{checkpoint.folder}: {error}") from error


def spec_of(checkpoint: Checkpoint) -> RewardSpec | None:
    """Return the reward spec that the policy learned from; None if it learned from the true reward.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The spec, or None.

    Raises:
        UserError: Its reward function is unknown, or of a module that the user has not named.
    """
    reward = checkpoint.content["reward"]
    if reward is None:
        return None
    try:
        function = make_reward(reward["function"], from_data=True) if "function" in reward else None
        return RewardSpec(tuple(reward["goal"]), tuple(reward["baseline"]), reward["alpha"], function)
    except UserError as error:
        raise UserError(f"{checkpoint.folder}: {error}") from error


def load_policy(checkpoint: Checkpoint, task: Task | None = None) -> Policy:
    """Load the policy of a checkpoint. Only its JSON and safetensors files are read.

    Args:
        checkpoint: The checkpoint.
        task: The task that it was trained for; by default found by its name in the checkpoint, see `task_of`.

    Returns:
        The greedy policy.

    Raises:
        UserError: The task is unknown, or the policy does not fit it.
    """
    env = (task or task_of(checkpoint)).make_env(None)
    try:
        return Policy(checkpoint, env.observation_space, env.action_space)
    finally:
        env.close()


def load_scorer(checkpoint: Checkpoint, device: str = "cpu") -> tuple[Scorer, FrameFormat] | None:
    """Load the reward model that the checkpoint's policy was trained with.

    Args:
        checkpoint: The checkpoint.
        device: PyTorch device of the model.

    Returns:
        A function that scores frames for the policy's reward spec, and the model's frame format; None if the policy learned
        from the true reward. The function raises UserError if a reward is not finite.

    Raises:
        UserError: The model cannot be loaded.
    """
    reward, spec = checkpoint.content["reward"], spec_of(checkpoint)
    if reward is None or spec is None:
        return None
    model = known_reward_model(reward["model"])
    model.load(device, reward["precision"], reward["micro_batch"])
    return _scorer(model, spec), model.frame_format


def _scorer(model: RewardModel, spec: RewardSpec) -> Scorer:
    def score(frames: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        rewards = score_episode(model, spec, frames, true_rewards)
        refuse_not_finite(rewards, model.model_id)
        return rewards

    return score


def run_episode(
    task: Task,
    policy: Callable[[np.ndarray], Any],
    seed: int,
    frame_format: FrameFormat | None = None,
    score: Scorer | None = None,
    rendering: Rendering | None = None,
    pictures: bool = False,
    visit: Callable[[gym.Env], Any] | None = None,
) -> Episode:
    """Run one episode.

    Args:
        task: The task.
        policy: Maps an observation to an action.
        seed: Seed of the environment.
        frame_format: Frame format of the reward model; by default no frames are rendered.
        score: Scores the frames; by default they are not scored.
        rendering: How states are rendered; by default the task's first textures and camera.
        pictures: Whether to render each state at the environment's own size, too.
        visit: Called with the environment after each step, for example to read the simulator's state.

    Returns:
        The episode, without returns by other models.

    Raises:
        UserError: The environment raises an error or draws no frames, or a reward is not finite.
    """
    env = task.make_env(frame_format, rendering)
    # A second environment goes through the same states, because the first renders at the reward model's input size.
    shown = task.make_pictured_env(rendering) if pictures else None
    observation, _ = env.reset(seed=seed)
    if shown is not None:
        shown.reset(seed=seed)
    observations, infos, visited = [observation], [], []
    drawn: list[Any] = []
    over = False
    while not over:
        action = policy(observation)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        observations.append(observation)
        infos.append(info)
        if visit is not None:
            visited.append(visit(env))
        if shown is not None:
            shown.step(action)
            drawn.append(shown.render())
    for each in (env, shown):
        if each is not None:
            each.close()
    frames = np.stack([info[INFO_FRAME] for info in infos]) if frame_format else None
    true_rewards = np.array([info[INFO_TRUE_REWARD] for info in infos])
    return Episode(
        observations=np.stack(observations),
        true_rewards=true_rewards,
        in_goal=np.array([info.get(INFO_SUCCESS, np.nan) for info in infos], np.float64),
        frames=frames,
        clip_rewards=score(frames, true_rewards) if score and frames is not None else None,
        pictures=drawn,
        visited=visited,
    )


def summarize(episodes: list[Episode]) -> dict[str, Any]:
    """Compute means over episodes with 95 % confidence intervals.

    Intervals are bootstrapped (BCa) for returns, and Wilson's for the success rate.

    Args:
        episodes: At least one.

    Returns:
        `episodes`, their number; and, where known, `clip_return`, `true_return`, `success` and, by model id, `judged`, each
        with `mean` and `interval` (both ends; None for the mean return of a single episode).
    """
    from scipy import stats  # here: it takes a second to import, which recording a video would wait for

    summary: dict[str, Any] = {"episodes": len(episodes)}
    for name in ("clip_return", "true_return"):
        values = np.array([getattr(episode, name) for episode in episodes])
        if np.isfinite(values).all():
            summary[name] = {"mean": float(values.mean()), "interval": _mean_interval(values)}
    if episodes[0].judged:
        returns = {model_id: np.array([episode.judged[model_id] for episode in episodes]) for model_id in episodes[0].judged}
        summary["judged"] = {
            model_id: {"mean": float(values.mean()), "interval": _mean_interval(values)} for model_id, values in returns.items()
        }
    wins = [episode.success for episode in episodes if episode.success is not None]
    if wins:
        interval = stats.binomtest(sum(wins), len(wins)).proportion_ci(CONFIDENCE, method="wilson")
        summary["success"] = {"mean": sum(wins) / len(wins), "interval": [float(interval.low), float(interval.high)]}
    return summary


def _mean_interval(values: np.ndarray) -> list[float] | None:
    from scipy import stats

    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return [float(values[0]), float(values[0])]
    result = stats.bootstrap((values,), np.mean, confidence_level=CONFIDENCE, rng=np.random.default_rng(0))
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def evaluate(
    checkpoint: Checkpoint,
    episodes: int,
    seed: int,
    pictures: bool,
    device: str = "cpu",
    judges: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[Episode]:
    """Run and score episodes of a checkpoint's policy.

    The frames of each episode are dropped once scored: those of 1 000 humanoid episodes at 224 pixels would take 15 GB.

    Args:
        checkpoint: The checkpoint.
        episodes: Number of episodes.
        seed: Seed of the first episode; it rises by 1 for each further episode.
        pictures: Whether to render the first episode for a video.
        device: PyTorch device of all reward models.
        judges: Ids of other models that score the same frames for the spec that the policy learned from, or, where they cannot
            compute its reward, for its goal and baseline alone.
        say: Called with a sentence for each judge that computes another reward.

    Returns:
        The episodes, without frames.

    Raises:
        UserError: A model cannot be loaded, a judge needs another frame format than the policy's own model, there are judges
            but the policy learned from the true reward, a judge is unavailable, or a reward is not finite.
    """
    task = task_of(checkpoint)
    policy, scorer = load_policy(checkpoint, task), load_scorer(checkpoint, device)
    score, frame_format = scorer or (None, None)
    judging = _load_judges(checkpoint, task, judges, frame_format, device, say)
    ran = []
    for index in range(episodes):
        drawn = rendering_of(checkpoint, task)
        episode = run_episode(task, policy, seed + index, frame_format, score, drawn, pictures=pictures and index == 0)
        judged = {model_id: _judged(judge, episode) for model_id, judge in judging.items()}
        ran.append(replace(episode, judged=judged, frames=None))
    return ran


def _judged(judge: Scorer, episode: Episode) -> float:
    assert episode.frames is not None
    return float(judge(episode.frames, episode.true_rewards).sum(dtype=np.float64))


def _load_judges(
    checkpoint: Checkpoint,
    task: Task,
    judges: Sequence[str],
    frame_format: FrameFormat | None,
    device: str,
    say: Callable[[str], None],
) -> dict[str, Scorer]:
    reward, spec, drawn = checkpoint.content["reward"], spec_of(checkpoint), rendering_of(checkpoint, task)
    loaded: dict[str, Scorer] = {}
    for model_id in judges:
        if reward is None or spec is None:
            raise UserError(
                f"{checkpoint.folder} learned from no reward model: there is no prompt that {model_id} could judge it by"
            )
        model = find_reward_model(model_id, judging=True)
        if model.frame_format != frame_format and not model.judges_only:
            raise UserError(
                f"{model.model_id} wants other frames than {reward['model']}, which the policy learned from ({model.frame_format}, not "
                f"{frame_format}): name a judge with the same input"
            )
        judged_by = model.judged_by(spec)
        model.check(judged_by)
        if judged_by != spec:
            say(judges_by_prompts(model_id, [spec.label]))
        model.check_scene(task.name, drawn.textures, drawn.camera)
        model.load(device, "fp32", reward["micro_batch"])
        loaded[model_id] = _scorer(model, judged_by)
    return loaded


def write_evaluation(
    checkpoint: Checkpoint, episodes: list[Episode], seed: int, folder: Path, video: bool = False
) -> dict[str, Any]:
    """Write `evaluation.json` (the summary) and `evaluation.csv` (a row for each episode) into a new folder.

    Args:
        checkpoint: The evaluated checkpoint.
        episodes: As `evaluate` returns them.
        seed: Seed of the first episode.
        folder: Must not exist yet. It appears when it is complete.
        video: Whether to write videos of the first episode, which must have pictures, see `write_videos`.

    Returns:
        The summary: checkpoint, its description, and the entries of `summarize`.

    Raises:
        UserError: The folder exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder")
    rows = [
        {"seed": seed + index} | episode.numbers() | {f"return by {judge}": value for judge, value in episode.judged.items()}
        for index, episode in enumerate(episodes)
    ]
    about = {name: checkpoint.content[name] for name in ("task", "algorithm", "reward", "seed", "env_steps")}
    summary = {"checkpoint": str(checkpoint.folder)} | about | summarize(episodes)
    with new_output(folder) as unfinished:
        unfinished.mkdir()
        pd.DataFrame(rows).to_csv(unfinished / "evaluation.csv", index=False)
        (unfinished / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        if video:
            write_videos(checkpoint, episodes[0], unfinished)
    return summary


def overlay(episode: Episode, title: str, note: str = "") -> list[np.ndarray]:
    """Draw the reward beneath each of an episode's pictures: its curve up to the step, and its value.

    Args:
        episode: With pictures. The true reward is drawn if nothing was scored.
        title: Line below the curve.
        note: Smaller line below the title.

    Returns:
        A larger picture for each step, uint8 (H, W, 3).
    """
    scored = episode.clip_rewards is not None
    rewards = np.asarray(episode.clip_rewards if scored else episode.true_rewards, np.float64)
    name = "CLIP reward" if scored else "true reward"
    return [_overlaid(picture, rewards, step, name, (title, note)) for step, picture in enumerate(episode.pictures)]


def _overlaid(picture: np.ndarray, rewards: np.ndarray, step: int, name: str, captions: tuple[str, str]) -> np.ndarray:
    image = Image.fromarray(picture)
    scale = max(1.0, _PICTURE_EDGE / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (image.width, image.height + _STRIP), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    top = image.height
    draw.text((_MARGIN, top + 2), f"{name} {rewards[step]:.3f}   step {step + 1}/{len(rewards)}", fill="black", font=font)
    below = top + 24 + _CURVE
    draw.text((_MARGIN, below + 6), captions[0], fill="dimgray", font=font)
    draw.text((_MARGIN, below + 26), captions[1], fill="dimgray", font=ImageFont.load_default(size=11))
    low, high = float(rewards.min()), float(rewards.max())
    spread = (high - low) or 1.0
    left, width = _MARGIN, canvas.width - 2 * _MARGIN
    upper, height = top + 24, _CURVE
    points = [
        (left + width * index / max(1, len(rewards) - 1), upper + height * (1 - (value - low) / spread))
        for index, value in enumerate(rewards)
    ]
    draw.line(points, fill="lightgray", width=1)
    draw.line(points[: step + 1], fill=(31, 119, 180), width=2)
    x, y = points[step]
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(214, 39, 40))
    return np.asarray(canvas)


def write_videos(
    checkpoint: Checkpoint, episode: Episode, folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES
) -> list[Path]:
    """Write videos of an episode with its reward, see `overlay`.

    Args:
        checkpoint: Its goal prompt is the title, and how its policy was chosen stands below.
        episode: With pictures.
        folder: Made if it does not exist.
        suffixes: File types.

    Returns:
        Paths of the files, `episode` with each suffix.
    """
    spec = spec_of(checkpoint)
    reference = "learned from the true reward" if checkpoint.env_steps else "untrained"
    title = f'"{spec.goal_prompts[0]}"' if spec else reference
    frames = overlay(episode, title, caption(checkpoint))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"episode{suffix}" for suffix in suffixes]
    for file in files:
        write_video(frames, file)
    return files


def caption(checkpoint: Checkpoint) -> str:
    """Say which policy is shown: its step, and how it was chosen."""
    if not checkpoint.env_steps:
        return "before training"
    return ", ".join(
        ["best policy, " + checkpoint.chosen if checkpoint.chosen else "last policy", f"step {checkpoint.env_steps:,}"]
    )


def write_plain_video(checkpoint: Checkpoint, episode: Episode, seed: int, folder: Path) -> None:
    """Write a video for raters, who must see neither reward nor prompt, and the episode's measurements as `episode.json`.

    Args:
        checkpoint: Its task and environment steps are written into `episode.json`.
        episode: With pictures.
        seed: Seed of the episode.
        folder: Made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {name: value if value is not None and np.isfinite(value) else None for name, value in episode.numbers().items()}
    about = {"task": checkpoint.content["task"], "env_steps": checkpoint.env_steps, "seed": seed} | known
    write_episode(folder, cast(EpisodeContent, about))
    write_video(episode.pictures, folder / PLAIN_VIDEO)
