"""TensorRT engines without torch: TensorRT or its lean runtime, and CUDA through cuda.bindings."""
