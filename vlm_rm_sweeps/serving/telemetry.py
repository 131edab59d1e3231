"""All Ray metrics of a sweep. They appear on every node's metrics endpoint: `vlm_rm_frames` as `ray_vlm_rm_frames_total`.

Each combination of tags is a time series, so there are few: the model id, or the trial id with its label, never prompts. Ray drops
the gauges of a process some seconds after it ends; counters stay as long as the cluster.
"""

import numpy as np
from ray.util.metrics import Counter, Gauge, Histogram

_MODEL, _TRIAL = ("model",), ("trial", "label")
_FRAMES = [1.0, 4, 16, 64, 256, 1024, 4096]
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]


def _tag(value: str) -> str:
    """Write a tag's value in ASCII, without which Ray raises an error: a model id may be a path with any letters."""
    return value.encode("ascii", "backslashreplace").decode("ascii")


class ServerMetrics:
    """Metrics of one reward server.

    Args:
        model_id: Id of its reward model, the tag of all series.
    """

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": _tag(model_id)}
        self._frames = Counter("vlm_rm_frames", "Frames that reward servers have scored.", _MODEL)
        self._encode = Counter("vlm_rm_encode_seconds", "Seconds that reward servers have spent on their model.", _MODEL)
        self._restarts = Counter("vlm_rm_restarts", "Reward servers that were started again after they died or hung.", _MODEL)
        self._backlog = Gauge("vlm_rm_backlog_frames", "Frames that a reward server has accepted and not scored yet.", _MODEL)
        self._micro_batch = Gauge("vlm_rm_micro_batch_frames", "Frames in each forward pass of a reward server.", _MODEL)
        self._mean = Gauge("vlm_rm_reward_mean", "Mean reward of a server's last request.", _MODEL)
        self._spread = Gauge("vlm_rm_reward_std", "Standard deviation of the rewards of a server's last request.", _MODEL)
        self._batch = Histogram("vlm_rm_request_frames", "Frames in one request.", boundaries=_FRAMES, tag_keys=_MODEL)
        self._latency = Histogram(
            "vlm_rm_request_seconds",
            "Time from a request's arrival at the server to its rewards, queueing included.",
            boundaries=_SECONDS,
            tag_keys=_MODEL,
        )

    def restarted(self) -> None:
        """Count a restart of the server."""
        self._restarts.inc(1, self._tags)

    def backlog(self, frames: int) -> None:
        """Set the number of frames that were accepted but not scored yet."""
        self._backlog.set(frames, self._tags)

    def scored(self, rewards: np.ndarray, seconds: float, encode_seconds: float, micro_batch: int) -> None:
        """Record a request that was scored.

        Args:
            rewards: float32 (N, number of specs).
            seconds: Time since the request arrived, queueing included.
            encode_seconds: Part of that time that was spent on the model.
            micro_batch: Frames in each forward pass.
        """
        frames = len(rewards)
        self._latency.observe(seconds, self._tags)
        self._micro_batch.set(micro_batch, self._tags)
        if frames == 0:
            return
        self._frames.inc(frames, self._tags)
        self._encode.inc(encode_seconds, self._tags)
        self._batch.observe(frames, self._tags)
        # Over frames, separately for each spec: specs differ in offset, which would inflate the standard deviation.
        self._mean.set(float(rewards.mean()), self._tags)
        self._spread.set(float(rewards.std(axis=0).mean()), self._tags)


class PoolMetrics:
    """Metrics of one pool, from whoever looks after its servers.

    Args:
        model_id: Id of the pool's reward model, the tag of all series.
    """

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": _tag(model_id)}
        self._servers = Gauge("vlm_rm_servers", "Reward servers that run.", _MODEL)

    def running(self, servers: int) -> None:
        """Set the number of servers that run."""
        self._servers.set(servers, self._tags)


class ClientMetrics:
    """Metrics of one client of a reward pool.

    Args:
        model_id: Id of the pool's reward model, the tag of all series.
    """

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": _tag(model_id)}
        self._retries = Counter("vlm_rm_retries", "Requests that were sent again, because a server died or hung.", _MODEL)
        self._killed = Counter("vlm_rm_hung_servers", "Reward servers that were killed because they did not answer.", _MODEL)

    def sent_again(self) -> None:
        """Count a request that was sent again, because its server died or hung."""
        self._retries.inc(1, self._tags)

    def killed_hung_server(self) -> None:
        """Count a server that was killed because it did not answer."""
        self._killed.inc(1, self._tags)


class ConnectorMetrics:
    """Metrics of the reward connector of one env runner.

    Args:
        model_id: Id of the reward model, the tag of all series.
    """

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": _tag(model_id)}
        self._transitions = Counter("vlm_rm_transitions", "Transitions whose reward was written into their episode.", _MODEL)
        self._render = Counter("vlm_rm_render_seconds", "Seconds that environments have spent drawing frames.", _MODEL)
        self._wait = Counter("vlm_rm_wait_seconds", "Seconds that env runners have waited for rewards.", _MODEL)

    def sampled(self, transitions: int, render_seconds: float, wait_seconds: float) -> None:
        """Count one sample of the env runner.

        Args:
            transitions: Number of transitions whose rewards were written into their episodes.
            render_seconds: Time that environments spent rendering frames.
            wait_seconds: Time that the env runner waited for rewards.
        """
        for counter, value in (
            (self._transitions, transitions),
            (self._render, render_seconds),
            (self._wait, wait_seconds),
        ):
            if value > 0:  # Ray's counters refuse 0
                counter.inc(value, self._tags)


class TrialMetrics:
    """Metrics of one trial.

    Its speed is the rate of a counter, which falls to 0 when the trial ends; a gauge would keep its last value.

    Args:
        trial_id: Id of the trial, a tag of all series.
        label: What people call it, the other tag.
    """

    def __init__(self, trial_id: str, label: str) -> None:
        self._tags = {"trial": trial_id, "label": _tag(label)}
        self._steps = Counter("vlm_rm_env_steps", "Environment steps that trials have sampled.", _TRIAL)

    def sampled(self, env_steps: int) -> None:
        """Count environment steps that were sampled."""
        if env_steps > 0:
            self._steps.inc(env_steps, self._tags)


def declared_series() -> set[str]:
    """Return the names of all time series in Ray's spelling, as a Prometheus server finds them."""
    metrics = [ServerMetrics(""), PoolMetrics(""), ClientMetrics(""), ConnectorMetrics(""), TrialMetrics("", "")]
    series: set[str] = set()
    for metric in (value for group in metrics for value in vars(group).values()):
        if isinstance(metric, Counter | Gauge | Histogram):
            name = f"ray_{metric.info['name']}"
            suffixes = {Counter: ["_total"], Gauge: [""], Histogram: ["_bucket", "_sum", "_count"]}[type(metric)]
            series |= {name + suffix for suffix in suffixes}
    return series
