"""A Llama-, Mistral-, Qwen- or Gemma-family checkpoint in a local folder, as a backbone.

A folder holds config.json, safetensors files and tokenizer.json; `checkpoint.read_checkpoint` reads it. The decoder is
one for all families; it needs no package but tokenizers, and what it reads of a configuration shows in logits that are
compared with the reference implementation's (tests/sims/golden), or is refused.

The JAX libraries that load such checkpoints were tried first (google-tunix 0.1.7 and keras-hub 0.32, in November 2026).
They drop settings without a word. google-tunix takes no config.json, turns by base 1e6 in every Llama and Qwen 3
whatever that says, has no Llama 3 scaling and no Mistral, fails under strict promotion of types and ranks, and adds 52
packages. keras-hub reads config.json in part and brings TensorFlow. A wrong backbone is a wrong baseline.
"""
