"""Sweeps in three packages: config (what is asked), tracking (what is written down), execution (what runs)."""
