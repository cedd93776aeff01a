"""The reference: ALIGN in PyTorch, and the loader of its checkpoints."""
