"""TensorRT engines of a bundle's graphs, built and proven on the GPU that they are for."""
