"""What a process does around any work: it shows progress, ends in order, reports errors in one line, and cleans up."""
