"""Training of align-tiny and of a larger preset: development scripts, never imported by the product."""
