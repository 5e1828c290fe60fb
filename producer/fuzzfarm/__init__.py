"""fuzzfarm: submit keyed batches of fuzz operations and subprocess jobs, and get keyed outcomes back."""
