"""The FP32 graphs: specifications, towers as they are traced, passes, checks and weight files."""
