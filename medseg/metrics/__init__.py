"""Metrics on label arrays."""
