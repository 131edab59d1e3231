"""Connectors for RLlib's pipelines."""
