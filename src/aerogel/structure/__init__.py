"""Structure tests of images: what container-structure-test's configuration says, and what an image says to it."""
