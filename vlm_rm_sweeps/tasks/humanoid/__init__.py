"""The humanoid: environment, scenes, reference poses, success tests, state spaces and tasks."""

import vlm_rm_sweeps.tasks.mujoco_import  # noqa: F401  # before any module here imports MuJoCo
