"""What saves steps for the humanoid: each choice of its recipe, taken back or replaced while all others stay.

    .venv/bin/python benchmarks/short_on_steps.py                     kneeling, the success test as reward: 9 arms of 3 seeds
    .venv/bin/python benchmarks/short_on_steps.py sweeps/humanoid_standing_truth.yaml
    .venv/bin/python benchmarks/short_on_steps.py --arm torque --arm "the recipe" --set steps=50_000
    .venv/bin/python benchmarks/short_on_steps.py sweeps/humanoid_kneeling.yaml --arm "the recipe" --set true_reward=false

An arm is the sweep file with the changes of `ARMS`. The last form tells what the reward is worth, with `--set embedded_version=v1`
or other `models` besides. Untrained policies are left out. Each arm is a sweep of its own in `--results`, which can be looked at,
reported on and, by `vlm-rm sweep ... --resume`, continued. With `--json FILE`, figures are written after each arm, and arms that
FILE has already, of the same sweep file and `--set`, are not run again.

For each arm it prints the greedy success of each seed's last policy (20 episodes), the seeds' steps to a greedy success of
`REACHED` (`-`: at none of the evaluations), the environment steps per second of a trial, and of these the CPU time (one thread, so
it is wall time) of sampling and of updates in ms a step.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_rm_sweeps.metrics import ENV_STEPS, EVALUATION, SAMPLING_SECONDS, STEPS_PER_SECOND, SUCCESS, UPDATE_SECONDS
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.training.checkpoints import TRIALS, TrialFolder, TrialResult

SWEEPS = Path(__file__).parents[1] / "sweeps"
ARMS: dict[str, list[str]] = {
    "the recipe": [],
    "torque": ["control.actions=torque"],
    "full observations": ["control.observations=full"],
    "observations as they are": ["settings.normalize_observations=false"],
    "plain critics": ["settings.critic_layer_norm=false"],
    "SimBa critics": ["settings.critic=simba", "settings.critic_layer_norm=false"],
    "TQC": ["algorithm=tqc"],
    "latest policy": ["settings.policy_averaging=0"],
    "an update a step": ["settings.updates_per_step=1"],
}
"""Changes of the sweep file by the name of each arm."""
REACHED = 0.95
_COLUMNS = f"{'arm':<28}{'greedy success':<24}{f'steps to {REACHED}':<28}{'steps/s':>8}{'sampling ms':>13}{'update ms':>11}"


def figures(results: Sequence[TrialResult]) -> dict[str, Any]:
    """Compute the figures of one trial from all its results."""
    reached = (result[ENV_STEPS] for result in results if result.get(EVALUATION + SUCCESS, 0.0) >= REACHED)
    steps = results[-1][ENV_STEPS]
    return {
        "success": results[-1][EVALUATION + SUCCESS],
        "steps_to_reach": next(reached, None),
        "steps_per_second": statistics.median(result[STEPS_PER_SECOND] for result in results),
        "sampling_ms": 1000 * sum(result[SAMPLING_SECONDS] for result in results) / steps,
        "update_ms": 1000 * sum(result[UPDATE_SECONDS] for result in results) / steps,
    }


def run(plan: Plan, results: Path) -> list[dict[str, Any]]:
    """Run an arm, and return the figures of each trial that has finished, in the order of the seeds."""
    folder = run_sweep(plan, results).folder
    found = (TrialFolder(folder / TRIALS / trial.trial_id).last()[0] for trial in plan.trials)
    trained = [each.content["results"] for each in found if each and each.content["done"] and each.env_steps]
    return [figures(results) for results in trained]


def row(arm: str, trials: Sequence[Mapping[str, Any]]) -> str:
    """Format the figures of an arm."""

    def median(name: str) -> float:
        return statistics.median(trial[name] for trial in trials)

    successes = " ".join(f"{trial['success']:.2f}" for trial in trials)
    reached = " ".join(f"{trial['steps_to_reach']:,.0f}" if trial["steps_to_reach"] else "-" for trial in trials)
    speeds = f"{median('steps_per_second'):>8.0f}{median('sampling_ms'):>13.2f}{median('update_ms'):>11.2f}"
    return f"{arm:<28}{successes:<24}{reached:<28}{speeds}"


def _chosen(only: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for arm, changes in ARMS.items():
        if not only or any(part in arm for part in only):
            yield arm, changes


def main() -> None:
    """Run the arms, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", type=Path, default=SWEEPS / "humanoid_kneeling_truth.yaml", help="the sweep file")
    parser.add_argument("--arm", action="append", default=[], help="only arms whose name has this part; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further changes, as in `vlm-rm sweep`")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the sweeps")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    of = known.setdefault(" ".join([options.sweep.stem, *options.set]), {})
    plans = {arm: load_plan(options.sweep, [*changes, *options.set]) for arm, changes in _chosen(options.arm)}
    for arm, plan in plans.items():
        assert isinstance(plan, Plan), f"{options.sweep} is a screening: expected a sweep"
        if arm not in of:
            of[arm] = run(plan, options.results)
            if options.json:
                options.json.write_text(json.dumps(known, indent=2) + "\n")
    print(_COLUMNS, *(row(arm, of[arm]) if of[arm] else f"{arm:<28}no trial has finished" for arm in plans), sep="\n")


if __name__ == "__main__":
    main()
