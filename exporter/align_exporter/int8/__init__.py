"""INT8 graphs: which tensors are quantized, with which scales, how accurate that is and how fast."""
