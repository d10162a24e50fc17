"""Gradients of the layers that ONNX has and PyTorch has as functions, each family loaded when it is asked for."""
