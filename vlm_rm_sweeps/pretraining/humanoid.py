"""The humanoid for pretraining: reference poses, states between them and states that policies visit, with captions.

As in the other environments, a caption describes a neighbour of the state. Here the neighbours are the reference poses: the
nearer a pose is, by the positions of the robot's parts, the more likely its caption.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import pick
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid, paper_camera
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, interpolated, perturbed
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.mujoco_import import mujoco
from vlm_rm_sweeps.tasks.rendering import Rendering

NEIGHBOUR_DISTANCES = (0.035, 0.12)
"""Scales of the label noise, in metres; one is drawn for each caption. The small one makes the peak at the goal sharp, the
large one orders far states."""

_ODD_DISTANCE = 0.3
"""In metres: `_ODD` competes like a pose at this distance, and so describes most states that are further from every pose."""

_ROBOTS = ("a humanoid robot", "a robot", "a humanoid", "the robot", "the humanoid robot", "a human-like robot", "one robot")
_WORDINGS: dict[str, tuple[str, ...]] = {
    "standing": (
        "standing",
        "standing up",
        "standing upright",
        "standing still",
        "standing straight on both legs",
        "on its feet",
        "upright on both feet",
        "standing with its arms at its sides",
        "standing with its arms down",
        "in a standing position",
        "standing on the floor",
    ),
    "arms raised": (
        "with both arms raised",
        "raising both arms",
        "standing with both arms raised",
        "holding both arms up in the air",
        "with both hands above its head",
        "standing up, arms raised",
        "stretching both arms upwards",
        "reaching up with both hands",
        "standing with its hands up",
        "with raised arms",
    ),
    "arms out": (
        "with its arms stretched out to the sides",
        "standing in the shape of a T",
        "spreading its arms wide",
        "with both arms out horizontally",
        "holding its arms out sideways",
        "standing with its arms spread like wings",
        "with both arms level with its shoulders",
    ),
    "hands on hips": (
        "with its hands on its hips",
        "standing with both hands on its hips",
        "with both hands at its hips",
        "standing with hands at the waist",
        "resting its hands on its hips",
        "standing with bent elbows, hands by the hips",
        "standing up, hands at the hips",
        "standing with arms akimbo",
        "holding its hips with both hands",
        "with its elbows out and its hands on the hips",
    ),
    "arms crossed": (
        "with its arms crossed",
        "crossing its arms",
        "standing with crossed arms",
        "standing with folded arms",
        "with both arms crossed in front of its chest",
        "folding its arms in front of its body",
        "standing up, arms crossed",
        "with its forearms across its chest",
        "standing with its arms folded",
    ),
    "kneeling": (
        "kneeling",
        "on its knees",
        "kneeling on the floor",
        "kneeling on both knees",
        "with both knees on the floor",
        "down on its knees",
        "on both knees, its body upright",
        "is kneeling down",
        "in a kneeling position",
    ),
    "kneeling on the heels": (
        "kneeling, sitting on its heels",
        "sitting back on its heels",
        "kneeling low on the floor",
        "on its knees, resting on its heels",
        "kneeling with its hands in its lap",
        "kneeling",
        "on both knees",
    ),
    "on one knee": (
        "on one knee",
        "with one knee on the floor",
        "down on one knee",
        "kneeling on one knee only",
        "with one knee down and one foot in front",
        "in a half kneeling position",
    ),
    "one leg": (
        "standing on one leg",
        "standing on one foot",
        "balancing on one leg",
        "with one leg lifted",
        "on one leg, the other knee raised",
        "lifting one knee, standing on the other leg",
        "standing on only one leg",
        "with one foot in the air",
        "holding one leg up",
        "standing up, one leg raised",
    ),
    "side splits": (
        "doing the splits",
        "doing the side splits",
        "doing the side splits on the floor",
        "with both legs stretched out to the sides on the floor",
        "practicing gymnastics, doing the splits",
        "in a wide straddle on the floor",
        "with its legs spread wide on the floor",
        "doing gymnastics with its legs wide apart",
    ),
    "front splits": (
        "doing the front splits",
        "with one leg stretched forwards and one backwards on the floor",
        "in a front split, one leg ahead and one behind",
        "in a long lunge on the floor",
    ),
    "sitting": (
        "sitting on the floor",
        "sitting with its legs stretched forwards",
        "sitting on the floor with straight legs",
        "seated, legs straight ahead",
        "sitting upright, both legs in front",
    ),
    "lotus": (
        "in the lotus position",
        "sitting in the lotus position",
        "seated down, meditating",
        "meditating on the floor",
        "sitting cross-legged",
        "seated with crossed legs",
        "seated in the lotus position, meditating",
        "doing yoga, seated with crossed legs",
        "sitting down to meditate, knees out and feet in",
    ),
    "squatting": (
        "squatting",
        "squatting low on its feet",
        "in a deep squat",
        "crouching on both feet",
        "with deeply bent knees and its arms forwards",
    ),
    "bowing": (
        "bowing",
        "bowing forwards",
        "bending forwards at the hips",
        "bent over, looking at the floor",
        "leaning its upper body far forwards",
    ),
    "lying on the back": (
        "lying on its back",
        "lying on the floor, face up",
        "flat on its back on the floor",
        "lying down on its back",
        "has fallen onto its back",
    ),
    "lying on the front": (
        "lying on its front",
        "lying face down on the floor",
        "flat on its belly on the floor",
        "lying down on its stomach",
        "has fallen flat on its face",
    ),
    "walking": (
        "walking",
        "taking a step",
        "walking forwards",
        "striding, one leg in front of the other",
        "in the middle of a step",
    ),
}
_ODD = {
    "upright": (
        "in an awkward position",
        "losing its balance",
        "stumbling",
        "with its limbs in disorder",
        "wobbling on its legs",
    ),
    "tilted": ("falling over", "falling", "tipping over", "about to hit the floor", "tumbling to the floor"),
    "low": (
        "collapsed on the floor",
        "in a heap on the floor",
        "sprawled on the floor",
        "fallen down",
        "lying crooked on the floor",
    ),
}
_UPRIGHT_POSES = frozenset(("arms raised", "arms out", "hands on hips", "arms crossed", "one leg", "walking"))
_UPRIGHT = ("standing", "standing upright", "on its feet", "in an upright position", "standing on the floor")
_SCENERY: dict[str, tuple[str, ...]] = {
    "modified": ("on a tiled floor under a blue sky", "in front of a blue sky", "outdoors", "on a stone floor"),
    "original": ("on a checkered floor", "in a dark simulation", "in a simulator", "on a chessboard floor"),
}
_NAMES = tuple(POSES)


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
        distances: To each reference pose, in metres; see `pose_distances`.
        textures: Textures of the scene.
        view: The camera.
    """

    qpos: tuple[float, ...]
    distances: tuple[float, ...]
    textures: str = "modified"
    view: View = View()

    def caption(self, rng: np.random.Generator) -> str:
        """Draw a caption: the pose in words (most often), the scenery with or without it, or the robot alone.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            For example "a robot kneeling on both knees, outdoors".
        """
        level, robot = rng.random(), pick(rng, _ROBOTS)
        if level < 0.04:
            return f"{pick(rng, ('a picture of ', 'a simulation of ', 'a render of ', ''))}{robot}"
        if level < 0.08:
            return f"{robot} {pick(rng, _SCENERY[self.textures])}"
        caption = f"{robot} {self._posture(rng)}"
        if level < 0.2:
            caption += f", {pick(rng, _SCENERY[self.textures])}"
        return caption

    def _posture(self, rng: np.random.Generator) -> str:
        scale = rng.choice(NEIGHBOUR_DISTANCES)
        exponents = -((np.array([*self.distances, _ODD_DISTANCE]) / scale) ** 2) / 2
        weights = np.exp(exponents - exponents.max())
        chosen = int(rng.choice(len(weights), p=weights / weights.sum()))
        if chosen == len(_NAMES):
            return pick(rng, _ODD[self._attitude()])
        name = _NAMES[chosen]
        if name in _UPRIGHT_POSES and rng.random() < 0.25:
            return pick(rng, _UPRIGHT)
        return pick(rng, _WORDINGS[name])

    def _attitude(self) -> str:
        _, x, y, _ = self.qpos[3:7]
        vertical = 1 - 2 * (x * x + y * y)
        if self.qpos[2] < 0.5:
            return "low"
        return "upright" if vertical > 0.8 else "tilted"


def pose_distances(qpos: np.ndarray) -> tuple[float, ...]:
    """Measure the distance of a state from each reference pose, independent of the robot's place and direction.

    It is the root mean square distance between the centres of the robot's parts, after the state is shifted and turned about
    the vertical axis to fit best.

    Args:
        qpos: The simulator's positions, float (24,).

    Returns:
        Distances in metres, in the order of `POSES`.
    """
    parts, references = _parts(qpos), _reference_parts()
    x, y = parts[:, 0], parts[:, 1]
    reference_x, reference_y = references[..., 0], references[..., 1]
    turn = np.arctan2((x * reference_y - y * reference_x).sum(1), (x * reference_x + y * reference_y).sum(1))
    turned_x = np.cos(turn)[:, None] * x - np.sin(turn)[:, None] * y
    turned_y = np.sin(turn)[:, None] * x + np.cos(turn)[:, None] * y
    squares = (turned_x - reference_x) ** 2 + (turned_y - reference_y) ** 2 + (parts[:, 2] - references[..., 2]) ** 2
    return tuple(float(each) for each in np.sqrt(squares.mean(1)))


@cache
def _reference_parts() -> np.ndarray:
    return np.stack([_parts(pose.qpos()) for pose in POSES.values()])


@cache
def _simulator() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = humanoid_model("original")
    return model, mujoco.MjData(model)


def _parts(qpos: np.ndarray) -> np.ndarray:
    """Compute the centres of the robot's geoms, float (G, 3), with the means of x and y at 0."""
    model, data = _simulator()
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    parts: np.ndarray = data.geom_xpos[model.geom_bodyid > 0].copy()
    parts[:, :2] -= parts[:, :2].mean(0)
    return parts


def sample_states(count: int, rng: np.random.Generator) -> list[HumanoidState]:
    """Sample noisy reference poses, states between two poses, and states that random and pose-seeking policies visit.

    Args:
        count: Number of states; 30 % of them are visited by policies.
        rng: The same generator state gives the same states.

    Returns:
        `count` states.
    """
    visited = round(0.3 * count)
    positions = [_posed(rng) for _ in range(count - visited)] + visited_positions(visited, rng)
    return [
        HumanoidState(tuple(qpos.tolist()), pose_distances(qpos), "original" if rng.random() < 0.3 else "modified", _view(rng))
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
    yaw = rng.normal(0, 15) if rng.random() < 0.8 else rng.uniform(-180, 180)
    return pose.qpos(yaw, (rng.normal(0, 0.15), rng.normal(0, 0.15)))


_EPISODE_STEPS = 60


def visited_positions(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Collect states from episodes that start at a pose, a third with random actions, the others driven towards a pose.

    Args:
        count: Number of states.
        rng: The same generator state gives the same states.

    Returns:
        The simulator's positions, `count` arrays float (24,).
    """
    env = Humanoid(Rendering())
    env.reset(seed=int(rng.integers(2**31)))
    names = list(POSES)
    positions: list[np.ndarray] = []
    while len(positions) < count:
        env.set_state(perturbed(POSES[pick(rng, names)], rng, 5.0).qpos(rng.normal(0, 15)), np.zeros(env.model.nv))
        target = None if rng.random() < 1 / 3 else POSES[pick(rng, names)].qpos()
        for step in range(_EPISODE_STEPS):
            env.step(rng.uniform(-0.4, 0.4, env.model.nu) if target is None else _pull(env, target))
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


_TEXTURES: tuple[str, ...] = ("modified", "original")


def render_states(states: list[HumanoidState], frame_format: FrameFormat) -> np.ndarray:
    """Render states, with the renderer that the tasks use.

    Args:
        states: N states.
        frame_format: Size of the frames.

    Returns:
        uint8 (N, H, W, 3).
    """
    environments = {
        (textures, camera): Humanoid(Rendering(textures, camera), frame_format)
        for textures in _TEXTURES
        for camera in ("paper", "default")
    }
    frames = []
    for state in states:
        env = environments[state.textures, "default" if state.view.follows else "paper"]
        if not state.view.follows:
            env._camera = _camera(state.view)
        env.set_state(np.array(state.qpos), np.zeros(env.model.nv))
        frames.append(env.render())
    for env in environments.values():
        env.close()
    return np.stack(frames)


def _camera(view: View) -> mujoco.MjvCamera:
    camera = paper_camera()
    camera.azimuth, camera.elevation, camera.distance = view.azimuth, view.elevation, view.distance
    return camera
