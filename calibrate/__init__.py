"""Calibration data and post-training quantization."""
