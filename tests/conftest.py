"""Leave the test process without tearing the interpreter down.

After all results are reported, torch, itk and ONNX Runtime loaded into one process were seen to
crash while the interpreter destroyed their modules: exit code 139 in place of pytest's own. The
exit status below is pytest's, whatever it is.
"""

import os
import sys

import pytest

STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if STATUS not in config.stash or hasattr(config, "workerinput"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[STATUS])
