"""What tests share: problems, bounds, checks, and files in the formats of data sets."""
