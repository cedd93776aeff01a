"""What an export reads of a checkpoint folder: weights, preprocessing, tokenizer, and whether they fit each other."""
