"""Wall time, CPU time and peak memory of a command with all its children."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Measured:
    wall: float
    cpu: float
    rss_mb: float


def tree(pid: int) -> list[int]:
    found = [pid]
    for at in found:
        try:
            for task in Path(f"/proc/{at}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            pass  # gone meanwhile
    return found


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def measure(command: str, env: dict[str, str], timeout: float = 1800) -> Measured:
    """Runs `command` in bash. An exit status other than 0 ends the benchmark with what was printed."""
    peak = 0
    started = time.perf_counter()
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()), daemon=True)
    reader.start()
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, sum(resident(p) for p in tree(process.pid)))

    def stop() -> None:
        for pid in reversed(tree(process.pid)):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    timer = threading.Timer(timeout, stop)
    timer.start()
    # The usage of the whole tree: bash waits for its children.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    timer.cancel()
    ended.set()
    sampler.join()
    reader.join(5)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        text = b"".join(output).decode(errors="replace")
        raise SystemExit(f"failed with {process.returncode}: {command}\n{text[-4000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak / 1e6)
