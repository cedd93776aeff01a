"""A user's own samples: images and captions that a graph's tensors are measured on."""
