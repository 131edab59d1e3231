"""Records a video of each trial's best policy, while other trials still run."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused, refuse, refused_nodes
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.trial import TrainingJob
from vlm_rm_sweeps.videos import VIDEO_FOLDER

_SEED = 10_000
_SILENCE_S = 1.0
_PATIENCE_S = 600.0
CPUS_PER_RECORDER = 4
"""Cores of a node for each of its recorders; one recorder runs on smaller ones, too."""
_SUFFIX = ".mp4"


def record_video(job: TrainingJob) -> Path:
    """Record one episode of the best policy of a trial, with rewards from the trial's pool.

    The same episode without rewards, for raters, is written beside it, see `write_plain_video`.

    Args:
        job: The trial's job, whose folder has the policy.

    Returns:
        The video file, on this machine; at an address, if the job has one, there is another.

    Raises:
        NodeRefused: This machine does not see the sweep's folder, or has another version of this package.
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
    from vlm_rm_sweeps.rewards.columns import score_episode
    from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward
    from vlm_rm_sweeps.serving.pool import RewardPool
    from vlm_rm_sweeps.training.algorithms.registry import algorithm_name, find_algorithm

    torch.set_num_threads(1)
    if job.in_common is not None:
        job.in_common.check_here()
    checkpoint = find_checkpoint(job.folder)
    score, frame_format = None, None
    if job.reward is not None:
        pool, spec = RewardPool.connect(job.reward.pool), job.reward.spec
        frame_format = pool.frame_format

        def score(frames: Any, true_rewards: Any) -> Any:
            return score_episode(pool, spec, frames, true_rewards)

    # The user named them: this process may find them by the checkpoint's names.
    find_algorithm(algorithm_name(type(job.settings)))
    if job.reward is not None and job.reward.spec.function is not None:
        make_reward(describe_reward(job.reward.spec.function))
    policy = load_policy(checkpoint, job.task)
    episode = run_episode(job.task, policy, _SEED, frame_format, score, rendering_of(checkpoint, job.task), pictures=True)
    folder = file_inside(TrialFolder(job.folder).folder, VIDEO_FOLDER)
    write_plain_video(checkpoint, episode, _SEED, folder)
    (video,) = write_videos(checkpoint, episode, folder, (_SUFFIX,))
    if isinstance(job.folder, RemoteFolder):
        job.folder.put_folder(VIDEO_FOLDER)
    return video


class Recorder:
    """Records one video after the other, in a process of its own: importing torch, RLlib and more takes longer than a video."""

    def record(self, job: TrainingJob) -> Path:
        """Record the video of one trial, see `record_video`."""
        return record_video(job)


class TrialVideos:
    """Records videos in processes beside the trials: in one, or on each large node of a cluster in one for every few CPUs.

    A failed recording is reported and affects nothing else.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: deque[tuple[str, TrainingJob]] = deque()
        self._recording: dict[ray.ObjectRef, tuple[str, TrainingJob, ActorHandle]] = {}
        self._idle: list[ActorHandle] = []
        self._nodes: dict[ActorHandle, str] = {}
        """The node of each recorder."""
        self._files: dict[str, Path] = {}

    def record(self, trial_id: str, job: TrainingJob) -> None:
        """Record a trial's video when a recorder is free, without waiting for it."""
        self._waiting.append((trial_id, job))
        self._go_on(0.0)

    def finish(self) -> dict[str, Path]:
        """Wait for the recordings, for ten minutes at most for each.

        Returns:
            The video files, by trial id.
        """
        silent_until = time.monotonic() + _SILENCE_S
        while self._go_on(max(0.0, silent_until - time.monotonic())):
            pass
        if self._recording:
            self._say(f"{len(self._recording) + len(self._waiting)} videos are being recorded; Ctrl-C leaves them to --resume")
            while self._go_on(_PATIENCE_S):
                pass
        for trial_id, *_ in (*self._recording.values(), *self._waiting):
            self._say(f"no video of trial {trial_id}: it was not recorded in time")
        files, self._files = self._files, {}
        self._waiting.clear()
        self._recording, self._idle, self._nodes = {}, [], {}  # ends the recorders
        return files

    def _go_on(self, timeout_s: float) -> bool:
        """Keep the recorders busy.

        Args:
            timeout_s: Seconds to wait for a recording to end.

        Returns:
            Whether one has ended.
        """
        ended = ray.wait(list(self._recording), timeout=timeout_s)[0] if self._recording else []
        for recording in ended:
            self._take_in(recording)
        while self._waiting and (recorder := self._free_recorder()) is not None:
            trial_id, job = self._waiting.popleft()
            self._recording[recorder.record.remote(job)] = trial_id, job, recorder
        return bool(ended)

    def _take_in(self, recording: ray.ObjectRef) -> None:
        trial_id, job, recorder = self._recording.pop(recording)
        try:
            self._files[trial_id] = ray.get(recording)
        except NodeRefused as error:  # another one records it
            if refuse(NodeRefused(error.node, error.reason)):
                self._say(f"{error.reason}. No video is recorded on that node")
            self._nodes.pop(recorder)
            self._waiting.appendleft((trial_id, job))
            return
        except Exception as error:
            self._say(f"no video of trial {trial_id}: {reason_of(getattr(error, 'cause', None) or error)}")
            if isinstance(error, RayActorError):  # a new recorder takes its place
                del self._nodes[recorder]
                return
        self._idle.append(recorder)

    def _free_recorder(self) -> ActorHandle | None:
        """Return a recorder that is idle or new; None if there are enough and all are busy."""
        if self._idle:
            return self._idle.pop()
        nodes = [node for node in ray.nodes() if node["NodeID"] not in refused_nodes()]
        node = _with_room(nodes, list(self._nodes.values()))
        if node is None:
            return None
        # It has one recording at a time, so only that one is repeated when it dies, on another node if need be.
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=1)(Recorder)
        recorder: ActorHandle = actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote()
        self._nodes[recorder] = node
        return recorder


def _with_room(nodes: Sequence[Mapping[str, Any]], taken: Sequence[str]) -> str | None:
    """Return the id of the node that has room for most recorders besides those on the nodes in `taken`; None if none has any.

    Where all nodes are small, one recorder runs on the largest.
    """
    cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]}
    room = {node: int(count // CPUS_PER_RECORDER) for node, count in cpus.items()}
    if not any(room.values()):
        return max(cpus, key=lambda node: cpus[node], default=None) if not taken else None
    left = {node: count - taken.count(node) for node, count in room.items()}
    best = max(left, key=lambda node: left[node])
    return best if left[best] > 0 else None
