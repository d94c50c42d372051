"""Workflows: a frozen options dataclass and a function each."""
