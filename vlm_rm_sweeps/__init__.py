"""vlm-rm-sweeps: CLIP as the reward of reinforcement learning, swept over prompts, model sizes and alpha.

Imported first in every process (driver, trial, reward server), so this is where process-wide defaults are set. All are
defaults: a value that the user has set in the environment wins.
"""

import os

_ENVIRONMENT_DEFAULTS = {
    # No telemetry leaves the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # pygame opens a window and a sound card even for `rgb_array`, and prints a banner.
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    # Progress is printed by this package; Tune would print whole configurations.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds: writing a result to MLflow's sqlite can take half a one, and Tune would warn of it.
    "TUNE_WARN_THRESHOLD_S": "10",
}
if not os.environ.get("RAY_ADDRESS"):
    # A cluster of this machine alone: keeps Ray on the loopback address, as it is on macOS and Windows. On Linux Ray otherwise
    # takes the machine's outer address, even if `ray.init` names 127.0.0.1, and its servers and its metrics, which know no
    # password, listen on every interface. Ray reads it when it is imported.
    _ENVIRONMENT_DEFAULTS["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Other users of this machine reach the loopback address too.
    _ENVIRONMENT_DEFAULTS["RAY_AUTH_MODE"] = "token"
for _name, _value in _ENVIRONMENT_DEFAULTS.items():
    os.environ.setdefault(_name, _value)
