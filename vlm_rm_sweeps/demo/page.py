"""Writes a page with a policy of the package, its reward and the reward's landscape: one file, which opens offline.

Neither Ray nor MLflow is started: the policy acts, and its frames are scored, in this process.
"""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm_rm_sweeps.evaluation.landscape import landscape, make_axis, walk
from vlm_rm_sweeps.evaluation.landscape_figure import draw_landscape
from vlm_rm_sweeps.evaluation.rollouts import (
    Episode,
    load_policy,
    load_scorer,
    rendering_of,
    run_episode,
    spec_of,
    task_of,
    write_videos,
)
from vlm_rm_sweeps.files import new_output
from vlm_rm_sweeps.rewards.registry import known_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.training.checkpoints import Checkpoint, read_checkpoint

POLICY = Path(__file__).parent / "policy"
_SEED = 12_345
_POINTS = 121
_ALPHAS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Demo:
    """What the page shows.

    Attributes:
        learned: An episode of the policy, with pictures and rewards.
        random: One of random actions, with rewards.
        video: MP4 of the first, with the reward drawn beneath.
        landscape: PNG of the reward over the first state variable.
    """

    learned: Episode
    random: Episode
    video: bytes
    landscape: bytes


def write_demo(file: Path) -> Demo:
    """Run the policy that ships with the package, and write a page about it.

    Args:
        file: The page, which is replaced if it exists.

    Returns:
        What the page shows.

    Raises:
        UserError: The file cannot be written.
    """
    checkpoint = read_checkpoint(POLICY)
    spec = spec_of(checkpoint)
    assert spec is not None  # it has learned from a reward model
    shown = _run(checkpoint, spec)
    environment = Environment(
        loader=PackageLoader("vlm_rm_sweeps.demo", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    page = environment.get_template("page.html.j2").render(
        demo=shown, goal=spec.goal_prompts[0], model=known_reward_model(_model_id(checkpoint)), steps=checkpoint.env_steps
    )
    with new_output(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return shown


def _run(checkpoint: Checkpoint, spec: RewardSpec) -> Demo:
    task, scorer = task_of(checkpoint), load_scorer(checkpoint)
    assert scorer is not None
    score, frame_format = scorer
    rendering = rendering_of(checkpoint, task)
    learned = run_episode(task, load_policy(checkpoint, task), _SEED, frame_format, score, rendering, pictures=True)
    actions = task.make_env(None).action_space
    actions.seed(_SEED)
    random = run_episode(task, lambda _: actions.sample(), _SEED, frame_format, score, rendering)
    with tempfile.TemporaryDirectory() as folder:
        (video,) = write_videos(checkpoint, learned, Path(folder), (".mp4",))
        content = video.read_bytes()
    model = known_reward_model(_model_id(checkpoint))
    model.load()
    walked = walk(task, [make_axis(task, task.require_states().variables[0].name, _POINTS)], {frame_format}, rendering)
    specs = {(alpha, "demo"): RewardSpec(spec.goal_prompts, spec.baseline_prompts, alpha) for alpha in _ALPHAS}
    figure, picture = draw_landscape(walked, landscape(walked, model, specs)), io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    plt.close(figure)
    return Demo(learned, random, content, picture.getvalue())


def _model_id(checkpoint: Checkpoint) -> str:
    reward = checkpoint.content["reward"]
    assert reward is not None
    return reward["model"]
