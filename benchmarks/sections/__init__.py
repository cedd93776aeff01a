"""Sections of ``docs/benchmarks.md``, each made of one committed result file, and the headline figures of the README."""
