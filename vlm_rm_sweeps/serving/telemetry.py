"""Ray metrics of reward servers. They appear on every node's metrics endpoint, prefixed with `ray_`.

The only tag is the model id: prompts would make a time series each.
"""

from ray.util.metrics import Counter, Gauge, Histogram

_TAGS = ("model",)


class ServerMetrics:
    """What one reward server reports."""

    def __init__(self, model_id: str) -> None:
        self._tags = {"model": model_id}
        self._requests = Counter("vlm_rm_requests", "Requests that reward servers have scored.", _TAGS)
        self._frames = Counter("vlm_rm_frames", "Frames that reward servers have scored.", _TAGS)
        self._backlog = Gauge("vlm_rm_backlog_frames", "Frames that a reward server has accepted and not scored yet.", _TAGS)
        self._batch = Histogram(
            "vlm_rm_request_frames", "Frames in one request.", boundaries=[1, 4, 16, 64, 256, 1024, 4096], tag_keys=_TAGS
        )
        self._latency = Histogram(
            "vlm_rm_request_seconds",
            "Time from a request's arrival at the server to its rewards, queueing included.",
            boundaries=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
            tag_keys=_TAGS,
        )

    def backlog(self, frames: int) -> None:
        self._backlog.set(frames, self._tags)

    def scored(self, frames: int, seconds: float) -> None:
        self._requests.inc(1, self._tags)
        self._frames.inc(frames, self._tags)
        self._batch.observe(frames, self._tags)
        self._latency.observe(seconds, self._tags)
