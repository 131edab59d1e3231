"""The humanoid's two scenes: Gymnasium's own, and a robot on a tiled floor under a cloudy sky with computed textures.

The modified scene changes only textures, materials and lights of Gymnasium's model, so the dynamics stay the same.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

_GYMNASIUM_XML = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "humanoid.xml"

_TEXTURE_SIZE = 128
_FLOOR_SIZE = 256
_SKY_SIZE = 256

_SHELL = (226, 228, 230)
_GRAPHITE = (62, 66, 74)
_ORANGE = (226, 120, 38)
_VISOR = (18, 24, 34)
_EYES = (70, 200, 255)
_TILE = (168, 160, 148)
_GROUND = (150, 146, 140)
_HORIZON = (214, 226, 236)
_ZENITH = (62, 118, 190)
_CLOUD = (248, 249, 250)

_MATERIALS = {
    "shell": ("torso1", "right_shin1", "left_shin1", "right_larm", "left_larm"),
    "graphite": ("uwaist", "lwaist", "right_thigh1", "left_thigh1", "right_uarm1", "left_uarm1"),
    "orange": ("butt", "right_hand", "left_hand", "right_foot", "left_foot"),
    "face": ("head",),
}


_FLOOR_SEEN = (-20.0, 2.0), (-10.0, 10.0)
"""The part of the floor, x and y in metres, that holds all that the paper's camera sees of it."""


def humanoid_model(textures: str, camera: str = "default") -> mujoco.MjModel:
    """Compile the model of a scene.

    Args:
        textures: `modified` for this package's scene, `original` for Gymnasium's.
        camera: The camera that draws it. For `paper` the model has only the floor that this camera sees: most of the time of a
            small frame in software goes into the floor's vertices. Robots stand on an endless plane in any case.

    Returns:
        The model, which all environments of a process share: do not change it.
    """
    return _compiled(textures, camera == "paper")


@functools.cache
def _compiled(textures: str, trimmed: bool) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(_GYMNASIUM_XML))
    if textures == "modified":
        _dress(spec)
    if trimmed:
        _trim_floor(spec)
    return spec.compile()


def _trim_floor(spec: mujoco.MjSpec) -> None:
    whole = spec.compile().stat
    # By these, MuJoCo places clipping planes and shadows.
    spec.stat.extent, spec.stat.center = whole.extent, whole.center.copy()
    floor = spec.geom("floor")
    material = spec.material(floor.material)
    for axis, (low, high) in enumerate(_FLOOR_SEEN):
        half = (high - low) / 2
        # The texture keeps its scale. It also stays in place, as whole repeats of it are cut off at the low end, or nothing.
        material.texrepeat[axis] *= half / floor.size[axis]
        floor.size[axis], floor.pos[axis] = half, (low + high) / 2


def _dress(spec: mujoco.MjSpec) -> None:
    for each in [*spec.textures, *spec.materials]:
        spec.delete(each)
    _add_texture(spec, "sky", mujoco.mjtTexture.mjTEXTURE_SKYBOX, _sky())
    _add_material(spec, "tiles", mujoco.mjtTexture.mjTEXTURE_2D, _tiles(), ["floor"])
    floor = spec.material("tiles")
    floor.texrepeat = [20, 20]
    floor.reflectance, floor.shininess, floor.specular = 0.15, 0.3, 0.2
    faces = {"shell": _plates(_SHELL, 0), "graphite": _plates(_GRAPHITE, 1), "orange": _plates(_ORANGE, 2), "face": _face()}
    for name, image in faces.items():
        _add_material(spec, name, mujoco.mjtTexture.mjTEXTURE_CUBE, image, _MATERIALS[name])
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.35, 0.35, 0.35]
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]
    for light in spec.lights:
        light.dir = [-0.5, 0.3, -1.0]
        light.diffuse = [0.6, 0.58, 0.54]


def _add_material(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtTexture, image: np.ndarray, geoms: Iterable[str]) -> None:
    _add_texture(spec, name, kind, image)
    material = spec.add_material(name=name, specular=0.5, shininess=0.6)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    for geom in geoms:
        spec.geom(geom).material = name
        spec.geom(geom).rgba = [1, 1, 1, 1]


def _add_texture(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtTexture, image: np.ndarray) -> None:
    height, width, channels = image.shape
    texture = spec.add_texture(name=name, type=kind, width=width, height=height, nchannel=channels)
    texture.data = image.tobytes()


def _noise(size: int, cells: int, seed: int) -> np.ndarray:
    """Compute smooth, periodic noise (size, size) in [0, 1]: several octaves, the first with `cells` x `cells` values."""
    rng = np.random.default_rng(seed)
    total, weight = np.zeros((size, size)), 0.0
    octave = 0
    while cells <= size // 2:
        grid = rng.random((cells, cells))
        at = np.arange(size) * cells / size
        low = at.astype(int)
        share = at - low
        share = share * share * (3 - 2 * share)
        high = (low + 1) % cells
        rows = grid[low] * (1 - share)[:, None] + grid[high] * share[:, None]
        total += (rows[:, low] * (1 - share) + rows[:, high] * share) / 2**octave
        weight += 1 / 2**octave
        cells, octave = cells * 2, octave + 1
    return total / weight


def _coloured(colour: tuple[int, int, int], brightness: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(colour) * brightness[..., None], 0, 255).astype(np.uint8)


def _plates(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    """Paint a cube texture of brushed plates with seams and bolts, uint8 (6 * size, size, 3)."""
    size = _TEXTURE_SIZE
    brushed = np.random.default_rng(seed).normal(0, 0.03, (size, 1)) + 0.12 * (_noise(size, 4, seed) - 0.5)
    brightness = 1 + np.broadcast_to(brushed, (size, size)).copy()
    rows, columns = np.mgrid[:size, :size]
    half = size // 2
    seam = (rows % half < 2) | (columns % half < 2)
    bolt = np.hypot(rows % half - 8, columns % half - 8) < 3
    brightness[seam | bolt] *= 0.55
    return np.tile(_coloured(colour, brightness), (6, 1, 1))


def _face() -> np.ndarray:
    """Paint the head's cube texture: a light shell whose front has a dark visor with two lit eyes."""
    size = _TEXTURE_SIZE
    sides = _plates(_SHELL, 3).reshape(6, size, size, 3)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    front = sides[0]
    # MuJoCo turns this face of the cube by 90 degrees: rows of the image run across the head.
    front[(np.abs(columns) < 0.24) & (np.abs(rows) < 0.44)] = _VISOR
    front[np.hypot(columns, np.abs(rows) - 0.2) < 0.08] = _EYES
    return sides.reshape(6 * size, size, 3)


def _tiles() -> np.ndarray:
    """Paint four stone tiles with joints, uint8 (size, size, 3)."""
    size = _FLOOR_SIZE
    brightness = 0.85 + 0.3 * _noise(size, 8, 4)
    half = size // 2
    rows, columns = np.mgrid[:size, :size]
    shades = np.array([[1.0, 0.93], [0.95, 1.03]])
    brightness = brightness * shades[rows // half, columns // half]
    brightness[(rows % half < 4) | (columns % half < 4)] *= 0.7
    return _coloured(_TILE, brightness)


def _sky() -> np.ndarray:
    """Paint a skybox: distant ground below the horizon, blue sky with clouds above it; uint8 (6 * size, size, 3)."""
    size = _SKY_SIZE
    v, u = 2 * (np.mgrid[:size, :size] + 0.5) / size - 1
    one = np.ones_like(u)
    # OpenGL's cube: right, left, up, down, front, back; y is up.
    directions = np.stack(
        [
            np.stack(face, axis=-1)
            for face in ((one, -v, -u), (-one, -v, u), (u, one, v), (u, -one, -v), (u, -v, one), (-u, -v, -one))
        ]
    )
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    up = directions[..., 1]
    blend = np.clip(up, 0, 1)[..., None] ** 0.6
    colours = (1 - blend) * np.asarray(_HORIZON) + blend * np.asarray(_ZENITH)
    clouds = _noise(512, 4, 5)
    # Clouds lie in a plane above: they become smaller and fade towards the horizon.
    height = np.maximum(up, 0.08)
    where = (directions[..., [0, 2]] / height[..., None] * 60).astype(int) % 512
    cover = np.clip((clouds[where[..., 0], where[..., 1]] - 0.5) * 5, 0, 0.85) * np.clip(up * 5 - 0.3, 0, 1)
    colours = colours + cover[..., None] * (np.asarray(_CLOUD) - colours)
    colours = np.where(up[..., None] < 0, np.asarray(_GROUND), colours)
    return colours.reshape(6 * size, size, 3).astype(np.uint8)
