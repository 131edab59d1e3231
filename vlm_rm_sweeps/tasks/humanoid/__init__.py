"""The humanoid: environment, scenes, reference poses, success tests."""
