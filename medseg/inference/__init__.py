"""From a volume to a segmentation."""
