"""A Llama-, Mistral-, Qwen- or Gemma-family checkpoint in a local folder, as a backbone.

A folder holds config.json, safetensors files and tokenizer.json; `checkpoint.read_checkpoint` reads it.

The JAX libraries that load such checkpoints were tried first (November 2026, jax 0.10.2, tiny checkpoints of random
weights). The largest difference of a float32 logit from the reference implementation, where all settings are the usual
ones of the family, and on the checkpoints of the golden file, where they are not:

                         llama        mistral      qwen2        qwen3        gemma        gemma 2      gemma 3
    google-tunix 0.1.7   2e-5, 4.8    none         1e-5, 3.2    7e-6, 5.3    fails        5e-6, 0.5    8e-6, 3.6
    keras-hub 0.32       2e-3, 3e-3   2e-2, 2e-2   9e-6, 3.2    9e-5, 7e-6   1e-5, 8e-6   0.1, 0.6     7e-6, 3.8
    this room            1e-5         1e-5         9e-6         7e-6         7e-6         2e-6         4e-6

They drop settings without a word. google-tunix takes no config.json: every configuration is written by hand; it turns
by base 1e6 in every Llama and Qwen 3 whatever that says, has no Llama 3 scaling and no Mistral, and fails under strict
promotion of types and ranks; it adds 52 packages. keras-hub reads config.json, in part, and brings TensorFlow. A wrong
backbone is a wrong baseline, so this room has one decoder of its own; it needs no package but tokenizers, and what it
reads of a configuration shows in the golden logits or is refused.
"""
