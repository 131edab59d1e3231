"""Reward models, which score frames. Nothing here depends on Ray."""
