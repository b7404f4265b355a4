"""Measure on other devices over ssh: ``bench`` is ``edgessl.gate.bench``, but there.

Here: ``devices`` (devices.toml), ``ssh`` (OpenSSH), ``link`` (questions, reconnecting), ``trees`` and
``wheel`` (what is sent), ``jobs`` (what runs there), ``bench``. There: ``device``.
"""
