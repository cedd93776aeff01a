"""TensorRT engines, run without torch: TensorRT or its lean runtime, and CUDA through cuda.bindings."""
