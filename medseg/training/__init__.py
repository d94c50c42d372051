"""Training on MONAI's engines."""
