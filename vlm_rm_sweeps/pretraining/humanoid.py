"""The humanoid for pretraining: reference poses, states between them and what policies visit, rendered as in the tasks."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import postures
from vlm_rm_sweeps.pretraining.captions import expand, pick
from vlm_rm_sweeps.pretraining.postures import WORDS, Posture, posture_of
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid, default_camera, paper_camera
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, interpolated, perturbed
from vlm_rm_sweeps.tasks.mujoco_import import mujoco
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering

_SCENERY: dict[str, tuple[str, ...]] = {
    "modified": ("on a tiled floor under a blue sky", "in front of a blue sky", "outdoors", "on a stone floor"),
    "original": ("on a checkered floor", "in a dark simulation", "in a simulator", "on a chessboard floor"),
}


@dataclass(frozen=True)
class View:
    """The camera that sees a state.

    Attributes:
        azimuth: In degrees; 180 is in front of a robot that faces +x.
        elevation: In degrees; negative looks down.
        distance: In metres.
        follows: Use Gymnasium's default camera instead, which moves with the robot and ignores the other values.
    """

    azimuth: float = 180.0
    elevation: float = -10.0
    distance: float = 3.5
    follows: bool = False


@dataclass(frozen=True)
class HumanoidState:
    """A state of the humanoid at rest, and how it is rendered.

    Attributes:
        qpos: The simulator's 24 positions.
        posture: Its attributes.
        textures: Textures of the scene.
        view: The camera.
        profile: How much OpenGL draws.
    """

    qpos: tuple[float, ...]
    posture: Posture
    textures: str = "modified"
    view: View = View()
    profile: Profile = "fast"

    @classmethod
    def of(cls, qpos: np.ndarray, **drawn: Any) -> "HumanoidState":
        """Make the state of the simulator's positions, float (24,), drawn as the other attributes say."""
        return cls(tuple(qpos.tolist()), posture_of(qpos), **drawn)

    def caption(self, rng: np.random.Generator) -> str:
        """Draw a caption: the posture in words (most often), the scenery with or without it, or the robot alone.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            For example "a robot kneeling on both knees, outdoors".
        """
        level, scenery = rng.random(), pick(rng, _SCENERY[self.textures])
        if level < 0.03:
            return expand(rng, "{a {picture|simulation|render} of |}{robot}", WORDS)
        if level < 0.06:
            return f"{expand(rng, '{robot}', WORDS)} {scenery}"
        posture = postures.caption(rng, self.posture)
        return f"{posture}, {scenery}" if level < 0.14 else posture

    def foil(self, rng: np.random.Generator) -> "HumanoidState":
        """Change trunk, legs or arms clearly; see `postures.foil`. The new state serves for captions only."""
        return replace(self, posture=postures.foil(rng, self.posture))


def sample_states(count: int, rng: np.random.Generator) -> list[HumanoidState]:
    """Sample noisy reference poses, states between two poses, and states that random and pose-seeking policies visit.

    Args:
        count: Number of states; 40 % of them are visited by policies.
        rng: The same generator state gives the same states.

    Returns:
        `count` states.
    """
    visited = round(0.4 * count)
    positions = [_posed(rng) for _ in range(count - visited)] + visited_positions(visited, rng)
    return [
        HumanoidState.of(
            qpos,
            textures="original" if rng.random() < 0.3 else "modified",
            view=_view(rng),
            # In software, the full profile takes fifty times as long.
            profile="full" if rng.random() < 0.04 else "fast",
        )
        for qpos in positions
    ]


def _view(rng: np.random.Generator) -> View:
    """Draw a camera: most often the paper's, sometimes Gymnasium's default, sometimes one near the paper's."""
    draw = rng.random()
    if draw < 0.6:
        return View()
    if draw < 0.75:
        return View(follows=True)
    return View(180 + rng.uniform(-30, 30), rng.uniform(-25, 0), rng.uniform(3.0, 4.2))


def _posed(rng: np.random.Generator) -> np.ndarray:
    names = list(POSES)
    pose = POSES[pick(rng, names)]
    if rng.random() < 0.35:
        pose = interpolated(pose, POSES[pick(rng, names)], rng.uniform(0, 1))
    pose = perturbed(pose, rng, rng.choice((3.0, 8.0, 20.0)))
    # How far the trunk is bent is asked of every pose, so it must not depend on the pose alone.
    if rng.random() < 0.35:
        pose = replace(pose, pitch=pose.pitch + rng.uniform(-30, 75))
    yaw = rng.normal(0, 15) if rng.random() < 0.8 else rng.uniform(-180, 180)
    return pose.qpos(yaw, (rng.normal(0, 0.15), rng.normal(0, 0.15)))


_EPISODE_STEPS = 60
_TARGET_STEPS = 15
"""Steps for which a policy that explores holds its target."""


def visited_positions(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Collect states from episodes that start at a pose, with the kinds of actions that policies take as they learn.

    A quarter takes random torques. A quarter drives the joints towards angles that are random, and drawn anew every few steps. The
    others are driven towards a pose.

    Args:
        count: Number of states.
        rng: The same generator state gives the same states.

    Returns:
        The simulator's positions, `count` arrays float (24,).
    """
    env = Humanoid(Rendering())
    env.reset(seed=int(rng.integers(2**31)))
    names = list(POSES)
    low, high = env.model.jnt_range[1:].T
    positions: list[np.ndarray] = []
    while len(positions) < count:
        kind = rng.random()
        start = POSES["standing"] if kind < 0.5 and rng.random() < 0.5 else POSES[pick(rng, names)]
        env.set_state(perturbed(start, rng, 5.0).qpos(rng.normal(0, 15)), np.zeros(env.model.nv))
        target = perturbed(POSES[pick(rng, names)], rng, 10.0).qpos()
        for step in range(_EPISODE_STEPS):
            if 0.25 <= kind < 0.5 and step % _TARGET_STEPS == 0:
                target[7:] = rng.uniform(low, high)
            env.step(rng.uniform(-0.4, 0.4, env.model.nu) if kind < 0.25 else _pull(env, target))
            if step % 4 == 0:
                positions.append(env.data.qpos.copy())
    env.close()
    return positions[:count]


_STIFFNESS, _DAMPING = 3.0, 0.15


def _pull(env: Humanoid, target: np.ndarray) -> np.ndarray:
    """Compute the action of a proportional-derivative controller that drives the joints to the target's angles."""
    joints = env.model.actuator_trnid[:, 0]
    positions, velocities = env.model.jnt_qposadr[joints], env.model.jnt_dofadr[joints]
    torque = _STIFFNESS * (target[positions] - env.data.qpos[positions]) - _DAMPING * env.data.qvel[velocities]
    return np.clip(torque, *env.model.actuator_ctrlrange.T)


def render_states(states: list[HumanoidState], frame_format: FrameFormat) -> np.ndarray:
    """Render states, with the renderer that the tasks use.

    Args:
        states: N states.
        frame_format: Size of the frames.

    Returns:
        uint8 (N, H, W, 3).
    """
    groups: dict[Rendering, list[int]] = {}
    for index, state in enumerate(states):
        # For the paper's camera the floor ends beside what that camera sees; others are near it, and see more.
        rendering = Rendering(state.textures, "paper" if state.view == View() else "default", state.profile)
        groups.setdefault(rendering, []).append(index)
    frames = np.empty((len(states), frame_format.size, frame_format.size, 3), np.uint8)
    # One after the other: to change between renderers takes ten times as long as to draw.
    for rendering, indices in groups.items():
        env = Humanoid(rendering, frame_format)
        for index in indices:
            state = states[index]
            env._camera = default_camera() if state.view.follows else _camera(state.view)
            env.set_state(np.array(state.qpos), np.zeros(env.model.nv))
            frames[index] = env.render()
        env.close()
    return frames


def _camera(view: View) -> mujoco.MjvCamera:
    camera = paper_camera()
    camera.azimuth, camera.elevation, camera.distance = view.azimuth, view.elevation, view.distance
    return camera
