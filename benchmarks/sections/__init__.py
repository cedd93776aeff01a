"""Sections of ``docs/benchmarks.md``, each made of one committed result file, and the README's headline figures."""
