"""Training of ALIGN-TINY and its larger sisters: development scripts, never imported by the product."""
