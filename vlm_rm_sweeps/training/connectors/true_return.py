"""The connector that logs the true return and success of each episode, under names of their own."""

from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from vlm_rm_sweeps.metrics import GOAL_FRACTION, INFO_SUCCESS, INFO_TRUE_REWARD, SUCCESS, TRUE_RETURN, is_success

_GOAL_STEPS = "goal_steps"


class TrueReturnConnector(ConnectorV2):
    """Env-to-module connector that logs the true return and, where it is known, the success of each finished episode.

    It removes both from each step's `info`, so that they never reach the learner.
    """

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: Any,
        explore: bool | None = None,
        shared_data: dict[str, Any] | None = None,
        metrics: MetricsLogger | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Read the last step of each running episode, and return `batch` as it is."""
        for episode in episodes:
            info = episode.get_infos(-1)
            if INFO_TRUE_REWARD not in info:
                continue  # just reset, no step taken
            # `custom_data` is carried over when RLlib cuts an episode into chunks.
            totals = episode.custom_data
            totals[TRUE_RETURN] = totals.get(TRUE_RETURN, 0.0) + info.pop(INFO_TRUE_REWARD)
            if INFO_SUCCESS in info:
                totals[_GOAL_STEPS] = totals.get(_GOAL_STEPS, 0) + int(info.pop(INFO_SUCCESS))
            if episode.is_done and metrics is not None:
                _log(metrics, totals, episode.t)
        return batch


def _log(metrics: MetricsLogger, totals: dict[str, Any], steps: int) -> None:
    metrics.log_value(TRUE_RETURN, totals[TRUE_RETURN], reduce="mean")
    if _GOAL_STEPS in totals:
        goal_fraction = totals[_GOAL_STEPS] / steps
        metrics.log_value(GOAL_FRACTION, goal_fraction, reduce="mean")
        metrics.log_value(SUCCESS, float(is_success(goal_fraction)), reduce="mean")
