"""What goes past one call of the runtime: bulk embedding into files, and what serves or searches embeddings.

Thin on purpose: a bundle is opened and run by `align_runtime`, and what needs an engine (Arrow, Ray, Triton, faiss) is
left to it. Each part has an extra of its own and is imported when it is used; importing this package needs none.
"""
