"""kdjax: from a large model and mostly unlabelled data to a small, fast, deployed one."""
