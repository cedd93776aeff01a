"""A user's own samples: pictures and captions that a graph's tensors are measured on."""
