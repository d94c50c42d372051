"""Numbers, pictures and reports of a segmentation."""
