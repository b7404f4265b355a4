"""Measure latency and accuracy on the device. No torch."""
