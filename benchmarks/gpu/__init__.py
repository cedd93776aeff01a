"""The check of a GPU host, and the timing against PyTorch that is part of it. Nothing here has run on a GPU yet."""
