"""From files to rows: what a source means, who is in it, and what enters the vocabulary."""
