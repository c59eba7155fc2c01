"""Where records go besides the run folder, one plugin each; none is on by default."""
