"""Reads a checkpoint folder: weights, image preprocessing and tokenizer."""
