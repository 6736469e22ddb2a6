"""One fit loop for every network: accelerate, EMA, checkpoints, exact resume. It has no medical knowledge."""
