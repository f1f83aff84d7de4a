"""Where compiled programs are kept, so that the second command of the day compiles nothing."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """JAX_COMPILATION_CACHE_DIR if it is set, else a folder in the user's cache."""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loss-threshold" / "jax"


def keep_compiled_programs() -> None:
    """Switch the cache on, for commands; never when a module is imported, and not against the user's own setting."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
