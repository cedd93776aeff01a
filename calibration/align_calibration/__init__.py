"""Calibration: activation ranges and quantization parameters of graphs, measured on calibration samples."""
