"""All Ray metrics of a sweep. They appear on every node's metrics endpoint: `vlm_rm_frames` as `ray_vlm_rm_frames_total`.

Tags are few, because each combination of them is a time series: the model id, or the trial's id. Never prompts. Ray forgets
the gauges of a process that ended after some seconds; counters stay as long as the cluster.
"""

import numpy as np
from ray.util.metrics import Counter, Gauge, Histogram

_MODEL, _TRIAL = ("model",), ("trial",)
_FRAMES = [1.0, 4, 16, 64, 256, 1024, 4096]
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]


class ServerMetrics:
    """What one reward server reports."""

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": model_id}
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
        self._restarts.inc(1, self._tags)

    def backlog(self, frames: int) -> None:
        self._backlog.set(frames, self._tags)

    def scored(self, rewards: np.ndarray, seconds: float, encode_seconds: float, micro_batch: int) -> None:
        """One request: its `(N, specs)` rewards, the seconds since it arrived, and those of them spent on the model."""
        frames = len(rewards)
        self._latency.observe(seconds, self._tags)
        self._micro_batch.set(micro_batch, self._tags)
        if frames == 0:
            return
        self._frames.inc(frames, self._tags)
        self._encode.inc(encode_seconds, self._tags)
        self._batch.observe(frames, self._tags)
        # Over frames, for each spec by itself: specs differ in offset, which is no spread of rewards.
        self._mean.set(float(rewards.mean()), self._tags)
        self._spread.set(float(rewards.std(axis=0).mean()), self._tags)


class ClientMetrics:
    """What one client of a reward pool reports."""

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": model_id}
        self._retries = Counter("vlm_rm_retries", "Requests that were sent again, because a server died or hung.", _MODEL)
        self._killed = Counter("vlm_rm_hung_servers", "Reward servers that were killed because they did not answer.", _MODEL)

    def sent_again(self) -> None:
        self._retries.inc(1, self._tags)

    def killed_hung_server(self) -> None:
        self._killed.inc(1, self._tags)


class ConnectorMetrics:
    """What the env connector of one env runner reports."""

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": model_id}
        self._transitions = Counter("vlm_rm_transitions", "Transitions whose reward was written into their episode.", _MODEL)
        self._render = Counter("vlm_rm_render_seconds", "Seconds that environments have spent drawing frames.", _MODEL)
        self._wait = Counter("vlm_rm_wait_seconds", "Seconds that env runners have waited for rewards.", _MODEL)

    def sampled(self, transitions: int, render_seconds: float, wait_seconds: float) -> None:
        for counter, value in (
            (self._transitions, transitions),
            (self._render, render_seconds),
            (self._wait, wait_seconds),
        ):
            if value > 0:  # Ray refuses to add nothing
                counter.inc(value, self._tags)


class TrialMetrics:
    """What one trial reports. Its speed is the rate of a counter, which falls to 0 when the trial ends; a gauge would stay."""

    def __init__(self, trial_id: str) -> None:
        self._tags = {"trial": trial_id}
        self._steps = Counter("vlm_rm_env_steps", "Environment steps that trials have sampled.", _TRIAL)

    def sampled(self, env_steps: int) -> None:
        if env_steps > 0:
            self._steps.inc(env_steps, self._tags)


def declared_series() -> set[str]:
    """Names of all time series that a Prometheus server can find, in the way Ray spells them."""
    metrics = [ServerMetrics(""), ClientMetrics(""), ConnectorMetrics(""), TrialMetrics("")]
    series: set[str] = set()
    for metric in (value for group in metrics for value in vars(group).values()):
        if isinstance(metric, Counter | Gauge | Histogram):
            name = f"ray_{metric.info['name']}"
            suffixes = {Counter: ["_total"], Gauge: [""], Histogram: ["_bucket", "_sum", "_count"]}[type(metric)]
            series |= {name + suffix for suffix in suffixes}
    return series
