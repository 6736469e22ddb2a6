"""The assessment of a synthetic cohort: which parts it has, in which order, and what a reader has to know of them."""
