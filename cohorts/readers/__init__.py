"""One reader per file format: a source file becomes source values and declared metadata, or a typed reason."""
