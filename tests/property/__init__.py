"""What holds for any input: bodies, values, batches, times and sealed records made up by Hypothesis."""
