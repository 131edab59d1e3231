"""Sweeps in three packages: config (files and plan), tracking (records and results), execution (runs)."""
