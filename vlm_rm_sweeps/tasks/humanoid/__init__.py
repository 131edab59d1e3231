"""The humanoid: environment, scenes, reference poses, success tests, state spaces and tasks."""
