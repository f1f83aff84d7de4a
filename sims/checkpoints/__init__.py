"""A Llama-, Mistral-, Qwen- or Gemma-family checkpoint in a local folder, as a backbone."""
