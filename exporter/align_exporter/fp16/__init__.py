"""FP16 graphs: which operators stay in FP32, the graph with its casts, and the proof that both are right."""
