"""Training: RLlib algorithms whose rewards come from a reward pool."""
