"""What every room uses: the error tree, frozen records, folders, progress, randomness, workers. It knows no images."""
