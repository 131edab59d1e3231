"""What this process and its children need in their environment before it uses Ray, Tune, MLflow or pygame.

Importing the package changes nothing: each function is called where the program starts what it is named after. All values are
defaults: one that the user has set wins. Ray, Tune and MLflow read some of them while they are imported, which may have happened
long ago; what they have read then is brought up to date.
"""

import os
import sys
from typing import Any


def prepare_ray() -> None:
    """Keep Ray quiet, and a cluster of this machine to itself. Call it before `ray.init`.

    Changes nothing if Ray runs already: a running cluster keeps what it was started with. `RAY_ADDRESS` names a cluster with an
    address and an authentication of its own.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        # Keeps Ray on the loopback address, as it is on macOS and Windows. On Linux Ray otherwise takes the machine's outer
        # address, even if `ray.init` names 127.0.0.1, and its servers and its metrics, which know no password, listen on every
        # interface.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Other users of this machine reach the loopback address too.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "ray" in sys.modules:
        _refresh_ray()


def _refresh_ray() -> None:
    """Bring what Ray has read from the environment while it was imported up to date.

    Without it, Ray would listen on every interface, and would not start: its processes would ask for a token that it does not send.
    """
    from ray import _raylet
    from ray._private import ray_constants

    constants: Any = ray_constants
    constants.ENABLE_RAY_CLUSTER = constants.env_bool(constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not constants.IS_WINDOWS_OR_OSX)
    raylet: Any = _raylet
    raylet.Config.initialize("")  # as Ray does when it turns the token on by itself


def prepare_tune() -> None:
    """Silence what Tune prints and the files that it writes beside this package's own. Call it before `Tuner.fit`."""
    from ray.tune.utils.util import warn_if_slow

    # Tune would print whole configurations.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune would also write each result as CSV, JSON and for TensorBoard.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Seconds. To write a result to MLflow's sqlite can take half a one.
    os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")
    warn_if_slow.DEFAULT_THRESHOLD = float(os.environ["TUNE_WARN_THRESHOLD_S"])


def prepare_mlflow() -> None:
    """Turn MLflow's telemetry off, and have its calls fail in seconds. Call it before the first of them."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # MLflow would try for minutes at each call; a sweep goes on meanwhile, and delivers later.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if "mlflow" in sys.modules:
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # makes the choice again


def prepare_pygame() -> None:
    """Have pygame open neither a window nor a sound card, which it does even for `rgb_array`. Call it before a frame is drawn."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
