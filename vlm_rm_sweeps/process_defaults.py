"""Settings of this process and its children: variables of Ray, Tune, MLflow and pygame, and how memory is kept.

Importing the package sets none of them: each function is called right before the library that it is named after is used. Values
that the user has set take precedence, except that Tune's own result files are always disabled. Ray, Tune and MLflow read some
variables when they are imported; if that has happened already, their settings are refreshed.
"""

import ctypes
import logging
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's malloc.h."""


def prepare_ray() -> None:
    """Turn off Ray's usage statistics, and keep a cluster on this machine private.

    Call it before `ray.init`. It changes nothing if Ray runs already: a running cluster keeps the settings that it was started
    with. A cluster that `RAY_ADDRESS` names has its own address and authentication.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        # Keeps Ray on the loopback address, as on macOS and Windows. On Linux Ray otherwise takes the machine's external
        # address, even if `ray.init` names 127.0.0.1, and its servers and its metrics, which need no password, listen on every
        # interface.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Other users of this machine can reach the loopback address too.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "ray" in sys.modules:
        _refresh_ray()


def _refresh_ray() -> None:
    """Refresh the settings that Ray read from the environment when it was imported.

    Otherwise Ray would listen on every interface, and would not start: its processes would ask for a token that it does not
    send.
    """
    from ray import _raylet
    from ray._private import ray_constants

    constants: Any = ray_constants
    constants.ENABLE_RAY_CLUSTER = constants.env_bool(constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not constants.IS_WINDOWS_OR_OSX)
    raylet: Any = _raylet
    raylet.Config.initialize("")  # as Ray does when it enables the token itself


def prepare_tune() -> None:
    """Turn off Tune's own output and result files, and the variable that it sets in trials for PyTorch Lightning.

    Call it before `Tuner.fit`.
    """
    prepare_rllib()
    from ray.tune.execution import class_cache
    from ray.tune.utils.util import warn_if_slow

    # A trial with variables of its own could not use a process that Ray keeps ready, and would take a second longer to start.
    class_cache.DEFAULT_ENV_VARS.pop("PL_DISABLE_FORK", None)

    # Tune would print whole configurations.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune would print 30 lines, with a traceback of its own, for each trial that is retried. What it died of is said in one.
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    # Tune would also write each result as CSV, JSON and for TensorBoard.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # In seconds. Writing a result to MLflow's SQLite database can take half a second.
    os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")
    warn_if_slow.DEFAULT_THRESHOLD = float(os.environ["TUNE_WARN_THRESHOLD_S"])


def prepare_rllib() -> None:
    """Silence what RLlib says of its own: of its deprecated modules, of its interfaces, and of how long it took.

    Call it before an algorithm's class is imported, or its configuration is checked: both may warn.
    """
    for speaker in ("ray._common.deprecation", "ray.rllib", "ray.tune.trainable"):
        logging.getLogger(speaker).setLevel(logging.ERROR)


def prepare_mlflow() -> None:
    """Turn off MLflow's telemetry, and make its calls fail within seconds.

    Call it before the first call of MLflow.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # MLflow would retry each call for minutes; a sweep continues without it and delivers later.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # MLflow would print two lines for each run that ends.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if "mlflow" in sys.modules:
        from mlflow.telemetry import set_telemetry_client

        set_telemetry_client()  # reads the variable again


def prepare_pygame() -> None:
    """Keep pygame from opening a window or a sound device, which it does even for `rgb_array`.

    Call it before a frame is drawn.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates next.

    By default glibc gives large blocks back to the system, which hands them out again page by page, each zeroed. An image tower on
    a CPU allocates its activations anew for each micro-batch, and these pages take up to a quarter of its time. Other C libraries
    are left as they are, and so are thresholds that the user has set (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`). See
    mallopt(3).
    """
    if {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_TRIM_THRESHOLD, -1)
    if not mallopt(_MMAP_THRESHOLD, 2**30):
        mallopt(_MMAP_THRESHOLD, 2**25)  # the most that older ones accept
