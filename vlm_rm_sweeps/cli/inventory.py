"""Commands that list tasks, models and the keys of sweep files, check reference poses, and show what a model sees."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.cli.options import (
    LARGEST_SEED,
    MOST_STATES,
    MOST_STEPS,
    JsonOutput,
    Overrides,
    RenderedCamera,
    RenderedTextures,
    new_file,
    new_folder,
)
from vlm_rm_sweeps.cli.terminal import print_json
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import new_output

if TYPE_CHECKING:
    from vlm_rm_sweeps.tasks.rendering import Rendering
    from vlm_rm_sweeps.tasks.task import Task


def tasks(as_json: JsonOutput = False) -> None:
    """List the tasks: their prompts, and what counts as success."""
    from vlm_rm_sweeps.tasks.registry import find_task, task_names

    found = [find_task(name) for name in task_names()]
    if as_json:
        print_json([_task_as_json(task) for task in found])
        return
    for task in found:
        print(f"{task.name}")
        print(f"  goal      {task.goal_prompt}")
        print(f"  baseline  {task.baseline_prompt}")
        print(f"  success   {task.success_criterion or 'unknown'}, for at least half of {task.episode_steps} steps")


def _task_as_json(task: "Task") -> dict[str, object]:
    return {
        "name": task.name,
        "goal": task.goal_prompt,
        "baseline": task.baseline_prompt,
        "success": task.success_criterion,
        "episode_steps": task.episode_steps,
        "textures": list(task.textures),
        "cameras": list(task.cameras),
    }


def poses(
    out: Annotated[Path, typer.Option(callback=new_folder, help="Folder for poses.csv and poses.png.")] = Path("results/poses"),
    samples: Annotated[int, typer.Option(min=1, max=MOST_STATES, help="Perturbed states for each reference pose.")] = 200,
    degrees: Annotated[float, typer.Option(min=0, max=180, help="Standard deviation of the noise on each joint.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the noise.")] = 0,
) -> None:
    """Check the humanoid's success tests against its reference poses."""
    from vlm_rm_sweeps.evaluation.poses import success_by_pose, write_success_by_pose

    shares = success_by_pose(samples, degrees, seed)
    print(shares.rename(columns=lambda task: task.removeprefix("humanoid-")).to_string(float_format="%.2f"))
    csv, picture = write_success_by_pose(shares, out)
    print(f"share of {samples} perturbed states (noise of {degrees:g} degrees) in the goal: {csv}, {picture}")


def models(
    containing: Annotated[str, typer.Argument(help="Only models whose id contains this.")] = "",
    as_json: JsonOutput = False,
) -> None:
    """List the models: registered ones, the embedded family, then every pair that open_clip can download."""
    from vlm_rm_sweeps.rewards.open_clip_config import HF_COMMAND, HF_EXTRA, missing_packages
    from vlm_rm_sweeps.rewards.open_clip_models import downloadable_models, embedded_models, models_of_transformers
    from vlm_rm_sweeps.rewards.openai_endpoint import API_KEY, BASE_URL
    from vlm_rm_sweeps.rewards.registry import EMBEDDED, find_reward_model, registered_reward_models

    needs = dict.fromkeys(models_of_transformers(), HF_EXTRA)
    needs["openai"] = f"{API_KEY} for OpenAI's own endpoint, {BASE_URL} for another"
    needs["distilled"] = "its teacher, for the texts"
    registered = [name for name in registered_reward_models() if name != EMBEDDED]
    embedded = embedded_models()
    listed = [
        model_id for model_id in [*registered, *embedded, *downloadable_models()] if containing.lower() in model_id.lower()
    ]
    if not listed:
        raise UserError(f"no model id contains {containing!r}; `vlm-rm models` without it lists all")
    if as_json:
        kinds = dict.fromkeys(embedded, "embedded") | dict.fromkeys(registered, "registered")
        print_json([{"id": each, "kind": kinds.get(each, "open_clip"), "needs": needs.get(each)} for each in listed])
        return
    marks = dict.fromkeys(models_of_transformers(), f"  [{HF_EXTRA}]") | dict.fromkeys(registered, "  (registered)")
    marks["distilled"] = f"/FOLDER/student.safetensors  (a model that `vlm-rm distill` has written; needs {needs['distilled']})"
    about = "any model of an endpoint like OpenAI's; it only judges: `audit.models`, `--judge`"
    marks["openai"] = f"/MODEL  ({about}; needs {needs['openai']})"
    for model_id in listed:
        if model_id in embedded:
            print(f"{model_id}  ({find_reward_model(model_id).parameters / 1e6:.2f} M parameters, ships with the package)")
        else:
            print(model_id + marks.get(model_id, ""))
    missing = missing_packages()
    state = f"{' and '.join(missing)}, not installed here: {HF_COMMAND}" if missing else "transformers, which is installed"
    print(f"models marked [{HF_EXTRA}] need {state}")
    print(
        "a checkpoint file works too: ARCHITECTURE/path/to/file.safetensors; a folder with open_clip_config.json: path/to/folder;"
    )
    print("a repository of the Hugging Face Hub: hf-hub:ORG/NAME; and a reward model of your own: MODULE:CLASS")


def rewards() -> None:
    """List the kinds of rewards with their formulas and parameters, for `rewards:` in a sweep file."""
    from vlm_rm_sweeps.rewards.functions.registry import find_reward, reward_kinds

    for kind in reward_kinds():
        function = find_reward(kind)
        print(f"{kind}  {function.formula}" + (f"  ({function.source})" if function.source else ""))
        for name, field in function.model_fields.items():
            default = "required" if field.is_required() else "" if field.default is None else f"default {_plain(field.default)}"
            print(f"  {name:<12} {field.description}{f' ({default})' if default else ''}")
    print("s: unit embedding of the frame; g: of the goal. And a reward of your own: MODULE:CLASS")


def _plain(default: object) -> object:
    return getattr(default, "label", default)  # of a reward within a reward


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the keys as Markdown tables instead.")] = False,
) -> None:
    """Print the JSON schema of sweep files, with which editors complete and check their keys."""
    from vlm_rm_sweeps.sweeping.config.schema import keys_as_markdown, sweep_schema

    print(keys_as_markdown() if markdown else json.dumps(sweep_schema(), indent=2))


class Profile(StrEnum):
    """Level of detail of OpenGL rendering."""

    FAST = "fast"
    FULL = "full"


class Policy(StrEnum):
    """Policy of a preview, in which nothing is learned."""

    RANDOM = "random"
    ZERO = "zero"


_SHOWN_MODEL = "embedded/small"


def render(
    task: Annotated[str, typer.Argument(help="A task of `vlm-rm tasks`, or a sweep file, whose first rendering is shown.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", callback=new_file, help="File to write: .png for the last step, .mp4 or .gif for all steps."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Model whose input is shown; by default the sweep file's first.", show_default=_SHOWN_MODEL),
    ] = None,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
    profile: Annotated[
        Profile | None, typer.Option(help="Level of detail of OpenGL; by default the sweep file's, else fast without a GPU.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_STEPS, help="Environment steps; by default 1 for a picture, a whole episode for a video."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the episode and of the actions.")] = 0,
    policy: Annotated[Policy, typer.Option(help="Random actions, or zeros.")] = Policy.RANDOM,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Show what a reward model sees of a task: frames at the model's own input size."""
    from vlm_rm_sweeps.rewards.registry import find_reward_model
    from vlm_rm_sweeps.tasks.preview import frames_of_episode
    from vlm_rm_sweeps.videos import PICTURE_SUFFIX, VIDEO_SUFFIXES, write_picture, write_video

    if output.suffix not in (PICTURE_SUFFIX, *VIDEO_SUFFIXES):
        raise UserError(f"{output}: expected a name that ends in {PICTURE_SUFFIX}, {' or '.join(VIDEO_SUFFIXES)}")
    if output.exists() and not force:
        raise UserError(f"{output} exists already: choose another name, or replace it with --force")
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}; make it first")
    chosen, rendering, first_model = _task_rendering_and_model(task, textures, camera, profile, overrides)
    shown = model or first_model
    reward_model = find_reward_model(shown)
    still = output.suffix == PICTURE_SUFFIX
    count = steps or (1 if still else chosen.episode_steps)
    frames = frames_of_episode(chosen, rendering, reward_model.frame_format, count, seed, random=policy == Policy.RANDOM)
    visible = reward_model.visible(frames[-1:] if still else frames)
    with new_output(output, replaces=force) as unfinished:
        if still:
            write_picture(visible[0], unfinished)
        else:
            write_video(list(visible), unfinished)
    print(
        f"{output}: {len(visible)} frame(s) of {chosen.name} as {shown} sees them, {visible.shape[2]} x {visible.shape[1]} "
        f"pixels, {rendering.textures} textures, {rendering.camera} camera, {rendering.profile} profile"
    )


def _task_rendering_and_model(
    name: str, textures: str | None, camera: str | None, profile: Profile | None, overrides: list[str]
) -> "tuple[Task, Rendering, str]":
    """Find the task of this name or of this sweep file, its rendering, and the model whose input is shown.

    Options that are not given take the sweep file's value or, for a task's name, the task's default.
    """
    from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
    from vlm_rm_sweeps.tasks.registry import find_task
    from vlm_rm_sweeps.tasks.rendering import machine_profile

    if Path(name).suffix not in (".yaml", ".yml"):
        if overrides:
            raise UserError(f"--set {overrides[0]!r} changes a sweep file, and {name!r} is a task: name a sweep file instead")
        task = find_task(name)
        return task, task.rendering(textures, camera, profile.value if profile else machine_profile()), _SHOWN_MODEL
    found = load_plan(Path(name), overrides)
    plan = found.plan if isinstance(found, Screening) else found
    first = plan.renderings[0]
    drawn = plan.task.rendering(textures or first.textures, camera or first.camera, profile.value if profile else first.profile)
    return plan.task, drawn, (*plan.sweep.models, _SHOWN_MODEL)[0]
