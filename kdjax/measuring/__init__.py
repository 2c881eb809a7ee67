"""What a model and its files are worth, and what they cost: the rows of the report."""
