"""Memory experts in JAX: a library that stands alone and imports nothing else of this project."""
