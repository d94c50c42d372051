"""Hounsfield units: what padding becomes, and whether values can be such units."""

AIR_HU = -1024
"""What CT padding becomes; the lower end of the 12-bit scale."""

LARGEST_MEDIAN_HU = 3500
"""Beyond bone and most metal: no image of a patient has half of its voxels above."""

SMALLEST_MAXIMUM_HU = -950
"""Thinner than lung: every image of a patient has something above."""


def why_not_hounsfield(low: float, median: float, high: float) -> str:
    """Say why the values of a CT image cannot be Hounsfield units.

    Args:
        low: Smallest value.
        median: Median value.
        high: Largest value.

    Returns:
        The reason, or an empty string for values that can.

    Examples:
        >>> why_not_hounsfield(-1024, -900, 1800)
        ''
        >>> why_not_hounsfield(0, 24, 4095)
        'none is negative (0 to 4095), though air and fat are'
    """
    if low >= 0 and high > 0:
        return f"none is negative ({low:g} to {high:g}), though air and fat are"
    if median > LARGEST_MEDIAN_HU:
        return f"their median is {median:g}, denser than bone"
    if low < high < SMALLEST_MAXIMUM_HU:
        return f"the largest is {high:g}, thinner than lung"
    return ""
