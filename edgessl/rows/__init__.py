"""Rows of text files, tables, folders and arrays, streamed: what calibrating and embedding read."""
