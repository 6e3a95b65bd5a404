"""The k-th operation of a run fails, for each k: T2 of the test plan."""
