"""Encoder -> ONNX (torch), and ONNX -> what a target runs (no torch)."""
