"""The runtime of align-onnx: opens a bundle and answers with embeddings. No torch, no onnx."""
