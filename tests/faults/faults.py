"""What can befall a request on its way, one function a fault; each takes the request's body and answers, or does not.

`PASSING` ones are over when the same request comes again; `LASTING` ones say what would be said again.
"""

import re

from tests.faults.proxy import Fault, Passing
from tests.servers import error_response, response


def internal_error(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("500 Internal Server Error", "InternalError"))


def slow_down(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("503 Slow Down", "SlowDown"))


def too_many_requests(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("429 Too Many Requests", "TooManyRequests"))


def error_within_200(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("200 OK", "InternalError"))


def done_but_500(passing: Passing) -> None:
    passing.relay()
    passing.send(error_response("500 Internal Server Error", "InternalError"))


def reset_before_request(passing: Passing) -> None:
    passing.reset()


def reset_inside_request(passing: Passing) -> None:
    passing.take(0.5)
    passing.reset()


def reset_after_request(passing: Passing) -> None:
    passing.take()
    passing.reset()


def answer_lost(passing: Passing) -> None:
    passing.relay()
    passing.reset()


def reset_before_body(passing: Passing) -> None:
    head, _ = passing.relay()
    passing.send(head)
    passing.reset()


def reset_inside_body(passing: Passing) -> None:
    head, body = passing.relay()
    passing.send(head + body[: len(body) // 2])
    passing.reset()


def closed_without_notice(passing: Passing) -> None:
    """Answer, and close what the client takes for a connection that it may use again."""
    head, body = passing.relay()
    passing.send(re.sub(rb"\r\nconnection: close", b"", head, flags=re.IGNORECASE) + body)
    passing.reset()


def reset_after_body(passing: Passing) -> None:
    head, body = passing.relay()
    passing.send(head + body)
    passing.reset()


def truncated_head(passing: Passing) -> None:
    head, _ = passing.relay()
    passing.send(head[: len(head) // 2])


def truncated_body(passing: Passing) -> None:
    head, body = passing.relay()
    passing.send(head + body[: len(body) // 2])


def stalled_request(passing: Passing) -> None:
    passing.hang()


def stalled_before_head(passing: Passing) -> None:
    passing.relay()
    passing.hang()


def stalled_inside_body(passing: Passing) -> None:
    head, body = passing.relay()
    passing.send(head + body[: len(body) // 2])
    passing.hang()


def access_denied(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("403 Forbidden", "AccessDenied"))


def forbidden_without_a_word(passing: Passing) -> None:
    passing.take()
    passing.send(response("403 Forbidden"))


def expired_token_400(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("400 Bad Request", "ExpiredToken"))


def expired_token_403(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("403 Forbidden", "ExpiredToken"))


def no_such_key(passing: Passing) -> None:
    passing.take()
    passing.send(error_response("404 Not Found", "NoSuchKey"))


def flipped(passing: Passing) -> None:
    """Flip a bit in the middle of a body."""
    head, body = passing.relay()
    middle = len(body) // 2
    passing.send(head + body[:middle] + bytes(byte ^ 4 for byte in body[middle : middle + 1]) + body[middle + 1 :])


QUICK: tuple[Fault, ...] = (
    internal_error,
    slow_down,
    too_many_requests,
    done_but_500,
    reset_before_request,
    reset_inside_request,
    reset_after_request,
    answer_lost,
    reset_before_body,
    reset_inside_body,
    reset_after_body,
    closed_without_notice,
    truncated_head,
    truncated_body,
)
SLOW: tuple[Fault, ...] = (stalled_request, stalled_before_head, stalled_inside_body)
PASSING = (*QUICK, *SLOW)
EXPIRED = (expired_token_400, expired_token_403)
LASTING = (access_denied, forbidden_without_a_word, *EXPIRED, no_such_key, flipped, error_within_200)
LOST = (done_but_500, answer_lost, reset_before_body, reset_inside_body, truncated_head, truncated_body)
"""The server did what it was asked for, and the program does not get to know it."""
