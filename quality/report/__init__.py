"""Reports as pages and JSON: what their templates need, and which images they may show."""
