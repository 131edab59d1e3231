"""Landscapes of a sweep's reward models (the paper's Figure 2): reward by the task's first state variable.

Run `python analysis/reward_landscape.py results/quickstart-...`. The sweep's models, alphas and first prompt are scored along
the variable; nothing is trained. Expect a single peak at the goal where training succeeded.
"""

import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone

from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.landscape import landscape, make_axis, walk
from vlm_rm_sweeps.evaluation.landscape_figure import draw_landscape
from vlm_rm_sweeps.sweeping.config.plan import make_plan
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep

_POINTS = 181


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    if runs.is_screening:
        raise DoesNotApplyError("it is a screening; draw its reward models with `vlm-rm landscape`")
    plan = make_plan(load_sweep(runs.folder / "sweep.yaml"))
    task = plan.task
    if task.states is None:
        raise DoesNotApplyError(f"{task.name} has no described state variables to walk along")
    prompt, models = plan.prompts[0], plan.trained_models
    formats = {plan.models[model_id].frame_format for model_id in models}
    walked = walk(task, [make_axis(task, task.states.variables[0].name, _POINTS)], formats, plan.renderings[0])
    specs = {
        model_id: {(reward.key, prompt.id): reward.spec(prompt) for reward in plan.rewards_of(model_id)}
        for model_id in plan.trained_models
    }
    table = pd.concat(
        [landscape(walked, load_for_measuring(model_id), of_model) for model_id, of_model in specs.items()], ignore_index=True
    )
    runs.save(draw_landscape(walked, table), table, "reward_landscape", seeds="")


if __name__ == "__main__":
    draw_alone(draw)
