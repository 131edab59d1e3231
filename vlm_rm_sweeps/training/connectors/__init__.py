"""Connectors that enter RLlib's pipelines."""
