"""A fuzzer for each parser of s3bu: bytes in, a value or an `S3buError` out, in bounded time and memory.

`python -m tests.fuzz TARGET --seconds 600` runs one by hand; `test_fuzz` runs each of them for a short while, the
cases that ever failed first. `mutation` makes cases of valid examples, `targets` says what is parsed and what must
hold of the outcome, `engine` runs them and keeps what fails.
"""
