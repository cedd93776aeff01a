"""Measurements as commands, their committed results under `results/`, and what is generated of them."""
