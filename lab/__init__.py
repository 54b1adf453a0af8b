"""Private servers, processes and machines, for the tests, the demo and the benchmarks."""
