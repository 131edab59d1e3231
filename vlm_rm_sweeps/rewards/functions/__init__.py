"""Reward functions: how a model's embeddings become rewards."""
