"""What of a bundle's configs may run without being trusted."""

from medseg.bundle.safety.guard import Unsafe, guarded, unsafe_parts, unsafe_training

__all__ = ["Unsafe", "guarded", "unsafe_parts", "unsafe_training"]
"""A bundle is code: its configs name classes to build and expressions to run."""
