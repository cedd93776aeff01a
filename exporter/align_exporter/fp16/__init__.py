"""FP16 graphs: operators that stay FP32, rounding of weights, casts, and emulation on a CPU."""
