"""What is said of a stage before anything runs."""
