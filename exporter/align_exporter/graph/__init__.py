"""The FP32 graphs: their specifications, the towers as they are traced, the passes, and the files they become."""
