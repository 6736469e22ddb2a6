"""Privacy of a synthetic set: copy search with positive controls, membership and attribute inference."""
