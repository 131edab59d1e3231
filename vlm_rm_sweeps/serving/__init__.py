"""Scoring of frames on a Ray cluster: reward servers, and the pool that distributes frames among them."""
