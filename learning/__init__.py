"""One fit loop for every network: accelerate, EMA, checkpoints, exact resume. It knows no medicine."""
