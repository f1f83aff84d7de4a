"""How much memory there is, asked before a large array is allocated."""

import os
from pathlib import Path

import jax


def refuse_beyond_memory(wanted_bytes: int, what: str, memory_limit_bytes: int | None = None) -> None:
    """ValueError with both numbers if more bytes are wanted than the limit; by default the limit is what is free."""
    limit = available_bytes() if memory_limit_bytes is None else memory_limit_bytes
    if limit is not None and wanted_bytes > limit:
        raise ValueError(
            f"{what} takes {wanted_bytes:,} bytes and {limit:,} are available: "
            "take fewer experts, narrower ones or bfloat16, or keep the bank on disk"
        )


def available_bytes() -> int | None:
    """Free bytes of the default device, which for a CPU are the machine's; None where nobody says."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    known = [free for free in (_machine_bytes(), _control_group_bytes()) if free is not None]
    return min(known, default=None)


def _machine_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:  # no count of what is free: all of it
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _control_group_bytes() -> int | None:
    """What a container may still take: its limit less what it uses, where pages that can be dropped do not count."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        pages = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else int(limit) - used + int(pages.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
