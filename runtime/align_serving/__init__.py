"""What goes past one call of the runtime: an HTTP service, bulk embedding, Ray, Triton, search."""
