"""The end of a process that has imported torch."""

import logging
import multiprocessing
import os
import sys
from typing import Never


def end_process(code: int = 0) -> Never:
    """End this process without Python's own clean-up, when all is written.

    To take torch and MONAI apart costs Python more than a second. Besides, gloo's threads live on
    when the group is destroyed; now and then one of them meets an interpreter that is gone, and
    aborts a process whose work is done and well.

    Args:
        code: Exit code.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
