"""The humanoid's tasks: the paper's poses, with its prompts (section 4.2)."""

from vlm_rm_sweeps.tasks.humanoid.env import CAMERAS, Humanoid
from vlm_rm_sweeps.tasks.humanoid.states import HumanoidStates
from vlm_rm_sweeps.tasks.humanoid.success import FULFILLING_POSES, SUCCESS_TESTS
from vlm_rm_sweeps.tasks.task import Task


def _task(name: str, goal: str, success_criterion: str) -> Task:
    is_success = SUCCESS_TESTS[name]
    return Task(
        name=name,
        goal_prompt=f"a humanoid robot {goal}",
        baseline_prompt="a humanoid robot",
        success_criterion=success_criterion,
        episode_steps=100,
        make_native_env=lambda rendering, frame_format: Humanoid(rendering, frame_format, is_success),
        states=HumanoidStates(is_success, FULFILLING_POSES[name]),
        textures=("modified", "original"),
        cameras=tuple(CAMERAS),
        draws_with_opengl=True,
    )


KNEELING = _task("humanoid-kneeling", "kneeling", "both knees bent and on the floor, torso upright")
LOTUS = _task(
    "humanoid-lotus",
    "seated down, meditating in the lotus position",
    "seated on the floor, knees low, bent and facing out, feet inward",
)
STANDING = _task("humanoid-standing", "standing up", "upright on one foot or both, legs straight enough")
ARMS_RAISED = _task("humanoid-arms-raised", "standing up, with both arms raised", "standing, both hands above the head")
SPLITS = _task(
    "humanoid-splits",
    "practicing gymnastics, doing the side splits",
    "seated on the floor, straight legs stretched out to both sides",
)
HANDS_ON_HIPS = _task(
    "humanoid-hands-on-hips",
    "standing up with hands on hips",
    "standing, each hand within 12 cm of its hip, elbows out",
)
ONE_LEG = _task("humanoid-one-leg", "standing up on one leg", "standing, balanced over one foot, the other at least 20 cm up")
ARMS_CROSSED = _task(
    "humanoid-arms-crossed", "standing up, with its arms crossed", "standing, forearms crossed in front of the torso"
)
