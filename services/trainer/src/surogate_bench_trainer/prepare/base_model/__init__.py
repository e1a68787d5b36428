"""The base model: checks of its files, configuration, tensors and tokenizer, and its conversion."""
