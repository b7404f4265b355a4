"""Make encoders physically smaller."""
