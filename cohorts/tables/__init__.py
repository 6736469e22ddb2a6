"""The table beside the images: its bytes, its columns, the meaning of its cells, and the join of rows with files."""
