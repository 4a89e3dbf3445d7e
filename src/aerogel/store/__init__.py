"""What aerogel keeps on disk: blobs, layers, snapshots, step results, image names."""
