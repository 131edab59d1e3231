"""Commands that measure reward models without training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.cli.options import (
    MOST_POINTS,
    MOST_STATES,
    Alphas,
    Baseline,
    DatasetFolder,
    JsonOutput,
    Models,
    Prompts,
    RenderedCamera,
    RenderedTextures,
    Rewards,
    listed,
    new_file,
    new_folder,
    read_rewards,
    refuse_to_overwrite,
    write_table,
)
from vlm_rm_sweeps.cli.terminal import (
    confusion_table,
    console,
    measures_table,
    print_json,
    records,
    say,
    say_aside,
    shapes_table,
    undefined_lines,
)
from vlm_rm_sweeps.errors import UserError

if TYPE_CHECKING:
    from vlm_rm_sweeps.evaluation.compare import Specs

_CURVE_POINTS, _MAP_POINTS = 181, 41


def epic(
    dataset: DatasetFolder,
    model: Models,
    alpha: Alphas = [],  # noqa: B006
    reward: Rewards = [],  # noqa: B006
    prompt: Prompts = [],  # noqa: B006
    baseline: Baseline = None,
    truth: Annotated[
        str,
        typer.Option(
            help="Ground truth for the rewards: `success`, `rater:NAME`, `raters` (their majority), or a formula over the data set's "
            "state variables, such as '-abs(theta)'."
        ),
    ] = "success",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", callback=new_file, help="Also write the table to this CSV file.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Measure how well reward models agree with a ground truth: EPIC and STARC distance, correlations, false positives, order."""
    import pandas as pd

    from vlm_rm_sweeps.evaluation.compare import check_models, compare_models
    from vlm_rm_sweeps.evaluation.ground_truth import read_truth
    from vlm_rm_sweeps.evaluation.states import load_states
    from vlm_rm_sweeps.sweeping.config.prompts import prompts_to_compare

    if output:
        refuse_to_overwrite(output)
    states = load_states(dataset)
    truth_values = read_truth(states, truth)
    task, models = states.task, listed("--model", model)
    prompts = prompts_to_compare(prompt, baseline, task)
    specs = read_rewards(alpha, "0", reward, prompts)
    known = int(truth_values.known.sum())
    tell = say_aside if as_json else say
    for remark in check_models(models, specs):
        tell(remark)
    tell(f"{known} of {len(states)} states of {task.name}, truth: {truth}")
    _say_seen_alone(specs, tell)
    comparisons = list(compare_models(states, truth_values, models, specs, say=tell))
    table = pd.concat([each.table for each in comparisons], ignore_index=True)
    if as_json:
        print_json(records(table))
    else:
        console.print(measures_table(table))
        for line in undefined_lines(table):
            print(line)
    tell(f"images encoded: {sum(each.images_encoded for each in comparisons):,}, for {len(table) * len(states):,} rewards")
    if output:
        write_table(output, table)
        tell(f"written to {output}")


def _say_seen_alone(specs: "Specs", tell: Callable[[str], None], where: str | None = None) -> None:
    """Say which rewards are others here than in training, where they see whole episodes; `where` is None for data sets."""
    from vlm_rm_sweeps.rewards.functions.base import seen_alone, seen_in_data_set

    needing = [str(key) for (key, _), spec in specs.items() if spec.function is not None and spec.function.needs_episode]
    if remark := seen_alone(needing, where) if where else seen_in_data_set(needing):
        tell(remark)


def confusion(
    datasets: Annotated[
        list[Path],
        typer.Argument(help="Folders of data sets of states, made with `vlm-rm states`: one for each of at least two tasks."),
    ],
    model: Models,
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=new_folder, help="Folder for figure and table; must not exist yet.")
    ],
    alpha: Alphas = [],  # noqa: B006
    reward: Rewards = [],  # noqa: B006
    prompt: Annotated[
        list[str],
        typer.Option(
            "--prompt",
            "--prompts",
            help="Another goal prompt, beside the tasks' own, or a .txt or .yaml file of them; may be repeated.",
        ),
    ] = [],  # noqa: B006
    baseline: Annotated[
        str | None, typer.Option(help="Baseline prompt for goals of --prompt without their own. Default: the first task's.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Draw a matrix of prompts and tasks: how well each task's sentence detects the success of each task."""
    from vlm_rm_sweeps.evaluation import confusion as confusions
    from vlm_rm_sweeps.evaluation.compare import check_models
    from vlm_rm_sweeps.evaluation.states import load_states
    from vlm_rm_sweeps.sweeping.config.prompts import prompt_of_task, prompts_to_compare

    refuse_to_overwrite(output)
    models, states = listed("--model", model), [load_states(each) for each in datasets]
    prompts = [prompt_of_task(each.task).model_copy(update={"id": each.task.name}) for each in states]
    for further in prompts_to_compare(prompt, baseline, states[0].task) if prompt else ():
        if further.id in {each.id for each in prompts}:
            raise UserError(f"--prompt: {further.id!r} is the name of a task, whose own sentence it is: choose another id")
        prompts.append(further)
    specs = read_rewards(alpha, "0", reward, prompts)
    tell = say_aside if as_json else say
    for remark in check_models(models, specs):
        tell(remark)
    _say_seen_alone(specs, tell)
    table = confusions.confusion(states, models, specs, say=tell)
    confusions.save_confusion(output, table)
    if as_json:
        print_json(records(table))
    else:
        for matrix in confusions.matrices(table):
            console.print(confusion_table(matrix))
            print(f"own sentence best: {matrix.tasks_told_apart} of {len(states)} tasks")
        for line in undefined_lines(table):
            print(line)
    tell(f"images encoded: {sum(map(len, states)) * len(models):,}\nwritten to {output}")


def landscape(
    task: Annotated[str, typer.Option(help="Name of a task; `vlm-rm tasks` lists them.")],
    model: Models,
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=new_folder, help="Folder for figure and tables; must not exist yet.")
    ],
    alpha: Alphas = [],  # noqa: B006
    reward: Rewards = [],  # noqa: B006
    prompt: Prompts = [],  # noqa: B006
    baseline: Baseline = None,
    variable: Annotated[
        list[str],
        typer.Option(
            help="A state variable, with an optional range, such as theta=-0.25:0.25; give two for a heat map. Default: the task's "
            "first."
        ),
    ] = [],  # noqa: B006
    points: Annotated[
        int | None,
        typer.Option(
            min=3, max=MOST_POINTS, help="Number of values of each variable. Default: 181 for one variable, 41 for two."
        ),
    ] = None,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
    as_json: JsonOutput = False,
) -> None:
    """Draw the reward as a function of one or two state variables (paper, Figure 2), models side by side."""
    import pandas as pd

    from vlm_rm_sweeps.evaluation import landscape as landscapes
    from vlm_rm_sweeps.evaluation.compare import check_models, load_for_measuring
    from vlm_rm_sweeps.evaluation.landscape_figure import save_landscape
    from vlm_rm_sweeps.rewards.registry import find_reward_model
    from vlm_rm_sweeps.sweeping.config.prompts import prompts_to_compare
    from vlm_rm_sweeps.tasks.registry import find_task

    refuse_to_overwrite(output)
    chosen, models = find_task(task), listed("--model", model)
    names = variable or [chosen.require_states().variables[0].name]
    values_each = points or (_CURVE_POINTS if len(names) == 1 else _MAP_POINTS)
    if values_each ** len(names) > MOST_STATES:
        raise UserError(f"--points {values_each} for {len(names)} variables: expected at most {MOST_STATES:,} states in all")
    axes = [landscapes.make_axis(chosen, name, values_each) for name in names]
    prompts = prompts_to_compare(prompt, baseline, chosen)
    specs = read_rewards(alpha, "0,0.25,0.5,0.75,1", reward, prompts)
    tell = say_aside if as_json else say
    for remark in check_models(models, specs):
        tell(remark)
    _say_seen_alone(specs, tell, "a landscape has")
    formats = {find_reward_model(each).frame_format for each in models}
    walked = landscapes.walk(chosen, axes, formats, chosen.rendering(textures, camera))
    table = pd.concat(
        [landscapes.landscape(walked, load_for_measuring(each), specs, tell) for each in models], ignore_index=True
    )
    shapes = save_landscape(output, walked, table)
    if as_json:
        print_json(records(shapes))
    else:
        console.print(shapes_table(shapes, walked.goal_units))
    tell(f"images encoded: {len(walked.points) * len(models):,}, for {len(table):,} rewards\nwritten to {output}")
