"""Bundles that name a GPU run on the device that medseg is told."""

import re
from typing import Any

from medseg.bundle.check.documents import is_expression

GPU = re.compile(
    r"torch\.device\(\s*(['\"])cuda(:\d+)?\1(\s*if\s+torch\.cuda\.is_available\(\)"
    r"\s*else\s*(['\"])cpu\4)?\s*\)"
)
"""A device that an expression states without asking, or where there is one."""

DEVICE = "@device"


def on_one_device(config: Any) -> Any:
    """Return configs whose expressions refer to the device in place of a GPU they name.

    Args:
        config: Nested configs, with the key `device`.

    Returns:
        The same without `torch.device('cuda')` and the like; what else there is is not copied.

    Examples:
        >>> on_one_device({"a": "$torch.load(@path, map_location=torch.device('cuda'))"})
        {'a': '$torch.load(@path, map_location=@device)'}
    """
    if isinstance(config, dict):
        return {name: on_one_device(value) for name, value in config.items()}
    if isinstance(config, list):
        return [on_one_device(value) for value in config]
    return GPU.sub(DEVICE, config) if is_expression(config) else config
