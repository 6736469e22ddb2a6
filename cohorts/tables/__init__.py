"""The table beside the images: its bytes, its columns, what its cells say, and which row belongs to which file."""
