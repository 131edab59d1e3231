"""Pieces that enter RLlib's connector pipelines."""
