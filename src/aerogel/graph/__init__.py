"""From a syntax tree to a graph of build operations. Pure."""
