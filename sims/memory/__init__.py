"""The application of `mome_jax`: a file's facts in memory experts beside a small frozen language model."""
