"""Where frames are scored: reward servers, and the pool that spreads frames over them."""
