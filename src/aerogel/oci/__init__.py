"""Images as values: digests, references, manifests, edits and their validation. Pure."""
