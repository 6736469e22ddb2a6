"""From files to rows: the meaning of a source, its patients, and its vocabulary."""
