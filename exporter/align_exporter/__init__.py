"""From the reference to a bundle: ONNX graphs, their passes, their proof."""
