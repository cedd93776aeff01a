"""Benchmarks: measurements as commands, their committed results under ``results/``, and the pages made of them."""
