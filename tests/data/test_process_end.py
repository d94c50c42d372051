import subprocess
import sys

import psutil

CODE = """
import multiprocessing, sys, time
from medseg.data.process_end import end_process
def main():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid)
    end_process(3)
if __name__ == "__main__":
    main()
"""


def test_what_was_printed_is_there_and_no_child_is_left(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    try:
        child = psutil.Process(int(done.stdout))
        assert child.status() == psutil.STATUS_ZOMBIE or not child.wait(10)
    except psutil.NoSuchProcess:
        pass
