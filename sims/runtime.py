"""How a command runs JAX: compiled programs are kept, and where many are to run, each has one core to itself.

Commands call one of these before they touch JAX; nothing here happens when a module is imported.
"""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR if it is set, else a folder in the user's cache."""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loss-threshold" / "jax"


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_up(*, large_products: bool = False) -> None:
    """Prepare this process to run programs side by side; without effect on JAX if it runs already.

    XLA splits loops over all cores, and two programs that do so wait for each other: a grid of narrow networks took a
    half longer. With one thread a program, and each called on the worker's own thread, no core waits. Large matrix
    products are not computed there, but by threads that all programs share: `large_products` gives these every core,
    without which two transformers side by side had one.
    """
    os.environ.setdefault("PJRT_NPROC", str(cores()) if large_products else "1")
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_programs(worth_seconds=0.2)


def keep_programs(*, worth_seconds: float = 0.0) -> None:
    """Keep programs that took so long to compile, for the next process; a program still has all cores."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the user's own place is left alone
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", worth_seconds)
