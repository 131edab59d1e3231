#!/usr/bin/env bash
# A first session on a clean clone, with the time of each step: clone to first metric, to the table, to a figure, to a task and to a
# reward model of one's own. Run it on an idle machine:   bash benchmarks/first_session.sh
# REPOSITORY=... takes another checkout, FOLDER=... another place (it must not exist). Nothing outside FOLDER is written, but for the
# caches of pip and uv; with an empty FOLDER the installation is that of a new user whose packages come from the configured mirror.
set -euo pipefail
REPOSITORY=${REPOSITORY:-$(cd "$(dirname "$0")/.." && pwd)}
FOLDER=${FOLDER:-$(mktemp -d)/session}
unset PYTHONPATH VIRTUAL_ENV MLFLOW_TRACKING_URI RAY_ADDRESS
BEGAN=$(date +%s.%N)
TOLD=()
clock() { # what has been reached; since when (default: the clone)
    TOLD+=("$(awk -v what="$1" -v began="${2:-$BEGAN}" -v now="$(date +%s.%N)" 'BEGIN {printf "%-52s %7.1f s", what, now - began}')")
    echo "== ${TOLD[-1]}"
}
echo "machine: $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), load $(cut -d' ' -f1-3 /proc/loadavg)"

STEP=$(date +%s.%N)
git clone --quiet "$REPOSITORY" "$FOLDER"; cd "$FOLDER"
echo "commit: $(git rev-parse HEAD)"
clock "clone" "$STEP"

STEP=$(date +%s.%N)
make install > ../install.log 2>&1
clock "install" "$STEP"

# The quick start, exactly as in the README; the first metric is the first result in its journal.
STEP=$(date +%s.%N)
make sweep > ../sweep.log 2>&1 &
SWEEP=$!
until grep -qs '"kind": "result"' results/quickstart-*/journal.jsonl; do
    kill -0 "$SWEEP" 2>/dev/null || { tail -20 ../sweep.log; exit 1; }
    sleep 0.2
done
clock "sweep: command to first metric" "$STEP"
clock "CLONE TO FIRST METRIC"
wait "$SWEEP"
tail -16 ../sweep.log
clock "sweep: command to table" "$STEP"
clock "CLONE TO TABLE"

RUN=$(ls -d results/quickstart-*)
STEP=$(date +%s.%N)
make analysis SWEEP_RUN="$RUN" > ../analysis.log 2>&1
ls "$RUN"/figures/*.png
clock "make analysis: all figures" "$STEP"
clock "CLONE TO FIGURES"

STEP=$(date +%s.%N)
.venv/bin/vlm-rm report "$RUN" > ../report.log 2>&1
clock "vlm-rm report" "$STEP"

# A task of one's own, as in docs/how-to/own-task.md: an environment in YAML with an embedded model, drawn, planned, and trained for 2 048 steps.
STEP=$(date +%s.%N)
cat > pendulum.yaml <<'YAML'
name: pendulum
env: {id: Pendulum-v1, episode_steps: 200, success: "obs[0] > 0.9"}
models: [embedded/tiny]
alphas: [0.5]
prompts: [{id: up, goal: a rod pointing straight up, baseline: a rod}]
steps: 8000
YAML
.venv/bin/vlm-rm render pendulum.yaml -o look.png
.venv/bin/vlm-rm sweep pendulum.yaml --dry-run
clock "own task: drawn and planned" "$STEP"
.venv/bin/vlm-rm sweep pendulum.yaml --set steps=2048 > ../task.log 2>&1
tail -8 ../task.log
clock "own task: trained for 2 048 steps" "$STEP"
clock "CLONE TO OWN TASK"

# A reward model of one's own, as in docs/how-to/own-reward-model.md.
STEP=$(date +%s.%N)
cat > my_reward.py <<'PY'
import numpy as np

from vlm_rm_sweeps import FrameFormat, RewardModel


class Brightness(RewardModel):
    frame_format = FrameFormat(size=64)

    def score(self, frames, specs):
        brightness = frames.mean(axis=(1, 2, 3), dtype=np.float32) / 255
        return np.repeat(brightness[:, None], len(specs), axis=1)
PY
cat > my_reward.yaml <<'YAML'
base: sweeps/quickstart.yaml
name: my-reward
models: [my_reward:Brightness, embedded/tiny]
YAML
.venv/bin/vlm-rm sweep my_reward.yaml --dry-run
clock "own reward model: planned" "$STEP"
.venv/bin/vlm-rm sweep my_reward.yaml --set steps=2048 --set "alphas=[0.0]" --set prompts=null > ../reward.log 2>&1
tail -10 ../reward.log
clock "own reward model: trained for 2 048 steps" "$STEP"
clock "CLONE TO OWN REWARD MODEL"

# The demonstration.
STEP=$(date +%s.%N)
.venv/bin/vlm-rm demo --no-open
clock "vlm-rm demo --no-open" "$STEP"

echo; echo "machine: $(nproc) cores, load at the end $(cut -d' ' -f1-3 /proc/loadavg), peak of the folder $(du -sh . | cut -f1)"
printf '%s\n' "${TOLD[@]}"
echo "logs: $(dirname "$FOLDER")"
