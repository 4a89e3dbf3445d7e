"""What an image holds: packages of every kind, read straight from its layers, and documents that tell of them."""
