"""Trees of files: tar, indexes, walking, patterns, copying, hashing, compressing."""
