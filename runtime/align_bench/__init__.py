"""Benchmarks of a bundle: what ``align-bench`` measures, keeps and shows."""
