"""What runs on every host of a farm; its executors and processes are also usable alone."""
