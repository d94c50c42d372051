"""Faults of a bundle, found without running any of it."""
