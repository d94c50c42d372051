"""Load, check and write MONAI bundles."""
