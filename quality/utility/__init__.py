"""Are synthetic images useful: classifiers that learn from them are tested on real patients."""
