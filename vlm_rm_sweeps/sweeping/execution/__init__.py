"""What runs: cluster, reward pools, trials, videos, screenings."""
