"""Whole files of texts or images to files of vectors: resumable, in constant memory.

``inputs`` reads, ``job`` embeds, ``parts`` keeps what is done, ``writers`` joins it, ``vectors``
reads it back.
"""
