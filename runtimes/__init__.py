"""Open a bundle and run it: sessions, text and image preprocessing. No torch, no transformers."""
