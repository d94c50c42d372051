"""Leave the test process without tearing the interpreter down.

After all results are reported, torch, itk and ONNX Runtime loaded into one process were seen to
crash while the interpreter destroyed their modules: exit code 139 in place of pytest's own. The
exit status below is pytest's, whatever it is.
"""

import os
import sys
from collections.abc import Iterator

import pytest

STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted networks out of the user's cache, those of commands that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _determinism_of_its_own() -> Iterator[None]:
    """Undo what a deterministic training asks of torch: the next test is another program."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.use_deterministic_algorithms(mode=False)
        torch.backends.cudnn.benchmark = False


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if STATUS not in config.stash or hasattr(config, "workerinput"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[STATUS])
