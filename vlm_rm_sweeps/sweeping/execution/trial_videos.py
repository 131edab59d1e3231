"""A video of what each trial's best policy does, recorded beside the trials that still run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.training.connectors.reward import RewardSource

_SEED = 10_000
_PATIENCE_S = 600.0
FOLDER = "video"
VIDEO_SUFFIX = ".mp4"
RECORDED = f"episode{VIDEO_SUFFIX}"


def record_video(folder: Path, source: RewardSource | None) -> Path:
    """Record one episode of the best policy of the trial in `folder`; its rewards come from the trial's pool.

    Beside it lies the same episode without them, for raters, see `write_plain_video`.
    """
    import torch

    from vlm_rm_sweeps.evaluation.rollouts import (
        find_checkpoint,
        load_policy,
        rendering_of,
        run_episode,
        task_of,
        write_plain_video,
        write_videos,
    )
    from vlm_rm_sweeps.serving.pool import RewardPool

    torch.set_num_threads(1)
    checkpoint = find_checkpoint(folder)
    score = None
    if source is not None:
        pool, spec = RewardPool.connect(source.pool), source.spec

        def score(frames: Any) -> Any:
            return pool.score(frames, [spec])[:, 0]

    frame_format = source.frame_format if source else None
    drawn = rendering_of(checkpoint)
    episode = run_episode(task_of(checkpoint), load_policy(checkpoint), _SEED, frame_format, score, drawn, pictures=True)
    write_plain_video(checkpoint, episode, _SEED, folder / FOLDER)
    (video,) = write_videos(checkpoint, episode, folder / FOLDER, (VIDEO_SUFFIX,))
    return video


class TrialVideos:
    """Records videos in a process beside the trials. One that fails costs nothing but itself."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._recording: dict[ray.ObjectRef, str] = {}

    def record(self, trial_id: str, folder: Path, source: RewardSource | None) -> None:
        """Start to record, without waiting."""
        task: Any = ray.remote(num_cpus=0, max_retries=1)(record_video)
        self._recording[task.remote(folder, source)] = trial_id

    def finish(self) -> dict[str, Path]:
        """Wait for what is being recorded; the files by trial id."""
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
        """Whether all are recorded, after waiting so long at most."""
        return not ray.wait(list(self._recording), num_returns=len(self._recording), timeout=timeout_s)[1]
