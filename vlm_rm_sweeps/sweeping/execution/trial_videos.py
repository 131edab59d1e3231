"""Records a video of each trial's best policy, while other trials still run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.training.trial import TrainingJob
from vlm_rm_sweeps.videos import VIDEO_FOLDER

_SEED = 10_000
_PATIENCE_S = 600.0
_SUFFIX = ".mp4"


def record_video(job: TrainingJob) -> Path:
    """Record one episode of the best policy of a trial, with rewards from the trial's pool.

    The same episode without rewards, for raters, is written beside it, see `write_plain_video`.

    Args:
        job: The trial's job, whose folder has the policy.

    Returns:
        The video file.
    """
    import torch

    from vlm_rm_sweeps.evaluation.rollouts import (
        find_checkpoint,
        load_policy,
        rendering_of,
        run_episode,
        write_plain_video,
        write_videos,
    )
    from vlm_rm_sweeps.serving.pool import RewardPool
    from vlm_rm_sweeps.training.algorithms.registry import algorithm_name, find_algorithm

    torch.set_num_threads(1)
    checkpoint = find_checkpoint(job.folder)
    score, frame_format = None, None
    if job.reward is not None:
        pool, spec = RewardPool.connect(job.reward.pool), job.reward.spec
        frame_format = pool.frame_format

        def score(frames: Any) -> Any:
            return pool.score(frames, [spec])[:, 0]

    find_algorithm(algorithm_name(type(job.settings)))  # the user named it: this process may find it by the checkpoint's name
    policy = load_policy(checkpoint, job.task)
    episode = run_episode(job.task, policy, _SEED, frame_format, score, rendering_of(checkpoint), pictures=True)
    write_plain_video(checkpoint, episode, _SEED, job.folder / VIDEO_FOLDER)
    (video,) = write_videos(checkpoint, episode, job.folder / VIDEO_FOLDER, (_SUFFIX,))
    return video


class TrialVideos:
    """Records videos in processes beside the trials.

    A failed recording is reported and affects nothing else.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._recording: dict[ray.ObjectRef, str] = {}

    def record(self, trial_id: str, job: TrainingJob) -> None:
        """Start recording a trial's video, without waiting for it."""
        task: Any = ray.remote(num_cpus=0, max_retries=1)(record_video)
        self._recording[task.remote(job)] = trial_id

    def finish(self) -> dict[str, Path]:
        """Wait for the recordings, for ten minutes at most.

        Returns:
            The video files, by trial id.
        """
        if self._recording:
            if not self._ready(timeout_s=1.0):
                self._say(f"{len(self._recording)} videos are being recorded; Ctrl-C leaves them to --resume")
            self._ready(_PATIENCE_S)
        files = {}
        for recording, trial_id in self._recording.items():
            try:
                files[trial_id] = ray.get(recording, timeout=0)
            except Exception as error:
                self._say(f"no video of trial {trial_id}: {reason_of(getattr(error, 'cause', None) or error)}")
        self._recording = {}
        return files

    def _ready(self, timeout_s: float) -> bool:
        """Whether all are recorded, after waiting for `timeout_s` seconds at most."""
        return not ray.wait(list(self._recording), num_returns=len(self._recording), timeout=timeout_s)[1]
