"""From an experiment to jobs: paths, arguments and resources, as the rules ask for them."""
