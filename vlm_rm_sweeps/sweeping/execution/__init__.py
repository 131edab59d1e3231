"""Execution of sweeps and screenings: Ray, reward pools, trials and videos."""
