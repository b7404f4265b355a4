"""Reports of many commits in one file, and where their figures changed."""
