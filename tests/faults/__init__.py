"""The program before servers that fail, and under signals: nothing wrong is written, and all of it is told."""
