"""This machine: what it has, and whether everything that a sweep needs works on it."""
