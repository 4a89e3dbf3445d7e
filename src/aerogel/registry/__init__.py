"""The client of registries: credentials, tokens, manifests, blobs, pushes."""
