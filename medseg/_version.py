"""The version, stated once: the package's metadata reads it here."""

__version__ = "0.1.0"
