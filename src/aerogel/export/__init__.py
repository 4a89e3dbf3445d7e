"""From finished stages to images, archives, folders."""
