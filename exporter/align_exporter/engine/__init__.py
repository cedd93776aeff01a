"""TensorRT engines of the graphs in a bundle, built and verified on the GPU that they are for."""
