"""What runs: Ray, reward pools, trials, videos, screenings."""
