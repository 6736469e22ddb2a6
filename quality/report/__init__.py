"""Reports as HTML pages and JSON: the content of their templates, and the images that they may show."""
